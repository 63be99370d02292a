"""The outer steps that a row takes for a recipe's budget of batch gradients."""

from typing import TYPE_CHECKING, Any

from .rows import method_of

if TYPE_CHECKING:  # its values are in the key of every cell
    from .recipe import Recipe

SETS = ("forget", "retain")  # of every cell


def steps_of(recipe: "Recipe", row: str, options: dict[str, Any], forget: int, retain: int) -> int:
    """The outer steps that a row takes for the recipe's budget: at least one. `forget` and `retain` are sizes."""
    method = method_of(row, options).for_data(SETS).sized(forget, retain)
    return max(1, int(recipe.budget / method.batch_gradients)) if method.trains else 1


def over_budget(recipe: "Recipe", options: dict[str, dict[str, Any]], sizes: tuple[int, int]) -> str:
    """A paragraph that names the rows whose single outer step is more than the budget; "" if there are none.

    Args:
        options: the chosen ones by row.
        sizes: numbers of forget and of retain samples.
    """
    spent = {}
    for row in recipe.methods:
        method = method_of(row, options[row]).for_data(SETS).sized(*sizes)
        if method.trains:
            spent[row] = steps_of(recipe, row, options[row], *sizes) * method.batch_gradients
    over = ", ".join(f"{row} ({gradients:g})" for row, gradients in spent.items() if gradients > recipe.budget)
    return f"\nOne outer step of these rows takes more batch gradients than the budget: {over}.\n" if over else ""
