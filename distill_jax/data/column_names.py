"""Which column of somebody's table is meant: by its usual names, or as it was said."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from distill_jax.core.errors import UserError, unknown

ROLES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "userid", "username", "uid", "customer", "customerid", "visitorid"),
    "item": ("item", "itemid", "iid", "movieid", "product", "productid", "sku", "articleid"),
    "time": ("time", "timestamp", "ts", "datetime", "date", "eventtime", "unixtime", "createdat"),
    "rating": ("rating", "ratings", "stars"),
    "kind": (
        *("kind", "event", "eventtype", "action", "actiontype", "behavior", "behaviortype"),
        *("behaviour", "behaviourtype", "feedback", "feedbacktype", "interactiontype"),
    ),
    "history": ("history", "itemidlist", "items"),
}
"""What a column holds -> what it is called, without case, signs and RecBole's ``:type``."""


FIELDS = "fields"
"""Beside the roles, what else of each row is read."""


def fields_of(columns: Collection[str], where: object, said: Mapping[str, str] | None) -> list[str]:
    """The columns that are read as fields of events.

    Raises:
      UserError: for one that is not there.
    """
    wanted = (said or {}).get(FIELDS, "").split(",")
    names = [name for name in (each.strip() for each in wanted) if name]
    for name in names:
        if name not in columns:
            raise unknown("column", name, columns, where=f"in {where}, for --privileged")
    return list(dict.fromkeys(names))


def column_of(
    role: str, columns: Collection[str], where: object, said: Mapping[str, str] | None = None
) -> str | None:
    """The column that holds a role; None where none is called so.

    Args:
      where: the file, for errors.
      said: role -> column, as the user named it (of ``FIELDS`` several, with commas); it wins.

    Raises:
      UserError: for a named column that is not there, or several that may be meant.
    """
    named = (said or {}).get(role)
    if named is not None:
        if named not in columns:
            raise unknown("column", named, columns, where=f"in {where}, for {role}")
        return named
    found = [name for name in columns if _plain(name) in ROLES[role]]
    if len(found) > 1:
        several = " and ".join(map(repr, found))
        raise UserError(
            f"{where}: columns {several} may both be the {role}; name one: --columns {role}=COLUMN."
        )
    return next(iter(found), None)


def no_column(
    role: str, columns: Collection[str], where: object, called: str | None = None
) -> UserError:
    """For a role that has to have a column and has none.

    Args:
      where: file and line.
      called: how the column is called as a rule; None for the role's own name.
    """
    found = unknown("column", called or role, columns, where=f"in {where}")
    return UserError(f"{found} Any other is named: --columns {role}=COLUMN.")


def parse_columns(text: str | None) -> dict[str, str]:
    """``user=userId,time=ts`` as role -> column.

    Raises:
      UserError: for another role, a column of two roles, or what is no such list.
    """
    said: dict[str, str] = {}
    for part in (text or "").split(","):
        role, equals, column = (each.strip() for each in part.partition("="))
        if not part.strip():
            continue
        if not equals or not column or role in said:
            raise UserError(f"--columns {text!r}: expected ROLE=COLUMN, each role once.")
        if role not in ROLES:
            raise unknown("role of a column", role, ROLES, where=f"in --columns {text!r}")
        if column in said.values():
            raise UserError(f"--columns {text!r}: column {column!r} is named for two roles.")
        said[role] = column
    return said


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.partition(":")[0].casefold())
