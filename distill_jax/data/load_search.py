"""``--data`` of a search model as text: which queries and products, from where."""

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import user_path
from distill_jax.data import esci, icon_search, search_pairs
from distill_jax.data.query_product import SearchData

FORMS = ("icon_search", "esci:FOLDER", "pairs:FOLDER")


def load_search(spec: str, **options: str) -> SearchData:
    """Search data by name.

    Args:
      spec: ``icon_search``; ``esci:FOLDER`` for the files of Amazon's Shopping Queries data set;
        ``pairs:FOLDER`` for the user's own query-product pairs.
      options: of the source: ``locale`` and ``version`` of ESCI.

    Raises:
      UserError: if there is no such data, or its content is not as expected.
    """
    kind, _, rest = spec.partition(":")
    if kind == "esci" and rest:
        return esci.load(user_path(rest), **options)
    if options:
        raise UserError(
            f"{spec!r} takes no {', '.join(sorted(options))}: these are options of esci."
        )
    if kind == "pairs" and rest:
        return search_pairs.load(user_path(rest))
    if spec != "icon_search":
        raise unknown("search data", spec, FORMS)
    return icon_search.load()
