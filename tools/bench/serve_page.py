"""What the load test found, as a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from steps import markdown


def page(results: Mapping[str, Any]) -> str:
    """The tables of ``serve.md``."""
    machine = results["machine"]
    head = (
        f"Callers and server share {machine['cores']} cores (load before: "
        f"{machine['load before']:.1f}); {results['seconds']:g} s each."
    )
    parts = [
        "**Load: one request after the other on each connection**",
        head,
        markdown(rate_lines(results["rates"])),
        "**Restart: SIGTERM under load, eight callers that try anew where a connection fails**",
        markdown(restart_lines(results["restarts"])),
        "**Bad manners, while eight good callers go on**",
        markdown(manner_lines(results["bad manners"])),
    ]
    return "\n\n".join(parts) + "\n"


def rate_lines(rates: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line a load."""
    heading = ["model", "connections", "texts a request", "requests/s", "texts/s"]
    heading += ["p50, ms", "p99, ms", "not answered"]
    return [heading] + [
        [
            rate["model"],
            str(rate["connections"]),
            str(rate["texts"]),
            f"{rate['requests_per_second']:.0f}",
            f"{rate['texts_per_second']:.0f}",
            f"{rate['p50']:.1f}",
            f"{rate['p99']:.1f}",
            str(sum(count for status, count in rate["statuses"].items() if status != "200")),
        ]
        for rate in rates
    ]


def restart_lines(restarts: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A line a way of restarting."""
    lines = [
        [
            "restart",
            "answered",
            "by the servers' own count",
            "sent, and closed without an answer",
            "never answered",
            "connections refused",
            "longest, s",
        ]
    ]
    for name, restart in restarts.items():
        own = restart["answered by their own count"]
        lines.append(
            [
                name,
                str(restart["answered"]),
                f"{own['old']} + {own['new']} = {sum(own.values())}",
                str(restart["unanswered"]),
                str(restart["lost"]),
                str(restart["refused"]),
                f"{restart['longest']:.2f}",
            ]
        )
    return lines


def manner_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line a kind."""
    heading = ["kind", "what came of it", "good requests meanwhile", "of them refused"]
    lines = [[*heading, "their p99, ms"]]
    for row in rows:
        came = ", ".join(f"{count} x {what}" for what, count in row["came of it"].items())
        numbers = [str(row["good requests"]), str(row["good refused"]), f"{row['good p99']:.1f}"]
        lines.append([row["kind"], came or "–", *numbers])
    return lines
