"""Which model a person means: its id, its name, or name@version."""

from http import HTTPStatus
from uuid import UUID

from cli.errors import CliError
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem

MOST_NAMED = 5


def find_model(api: ApiClient, wanted: str) -> Json:
    """Find a model by its id, its name (of several versions the one that serves) or name@version.

    Raises:
        CliError: none fits, or several do.
    """
    try:
        return api.get(f"/v1/models/{UUID(wanted)}")
    except ValueError:
        pass  # no id
    except ApiProblem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
        raise CliError(
            f"no model has the id {wanted}", "`clipbert models list` shows all"
        ) from None
    name, _, version = wanted.rpartition("@") if "@" in wanted else (wanted, "", "")
    fitting = [
        model
        for model in api.all_items("/v1/models")
        if model["name"] == name and str(model["version"]).startswith(version)
    ]
    found = fitting if len(fitting) == 1 else [each for each in fitting if each.get("serves")]
    if len(found) == 1:
        return found[0]
    if not fitting:
        raise CliError(f"no model is named {wanted!r}", "`clipbert models list` shows all")
    names = ", ".join(model_name(model) for model in fitting[:MOST_NAMED])
    raise CliError(f"{len(fitting)} models are named {wanted!r}: {names}", "give name@version")


def serving_model(api: ApiClient, task: str) -> Json:
    """Find the model that serves a task.

    Raises:
        CliError: none does.
    """
    for model in api.all_items("/v1/models"):
        if task in (model.get("serves") or []):
            return model
    raise CliError(f"no model serves {task}", "`clipbert models list` shows what serves")


def model_name(model: Json) -> str:
    """Return a model's name and version, as find_model() takes them."""
    return f"{model['name']}@{model['version']}"
