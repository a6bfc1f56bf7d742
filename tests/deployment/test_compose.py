"""docker-compose.yml against the Compose Specification and against our own entry points."""

import importlib.util
import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from celery.bin.celery import celery
from jsonschema import Draft7Validator
from typer.main import get_command

from api.settings import ApiSettings
from cli.main import app as clipbert_app
from embedded.deployment import plan_processes
from store.settings import StoreSettings
from workers.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {"POSTGRES_PASSWORD": "pg-secret", "REDIS_PASSWORD": "redis-secret"}
VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:[-?])([^}]*))?\})")
SETTINGS = {"STORE_": StoreSettings, "WORKER_": WorkerSettings, "API_": ApiSettings}
OURS = ["migrate", "api", "worker-ingest", "worker-gpu", "worker-cpu"]
OURS += ["finetune-gpu", "finetune-cpu", "maintenance", "beat"]


@pytest.fixture(scope="module")
def compose():
    return read_compose(SECRETS)


def test_the_file_is_valid_by_the_compose_specification(compose):
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    # Keys beginning with x- are extensions; the schema allows them at the top by a pattern.
    Draft7Validator.check_schema(schema)

    errors = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in Draft7Validator(schema).iter_errors(compose)
    ]

    assert errors == []


def test_the_schema_that_is_checked_against_refuses_a_wrong_file(compose):
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    wrong = json.loads(json.dumps(compose))
    wrong["services"]["api"]["port"] = ["8000:8000"]  # `ports` is the word

    assert not Draft7Validator(schema).is_valid(wrong)


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_no_secret_has_a_default(missing):
    with pytest.raises(KeyError, match=missing):
        read_compose({name: value for name, value in SECRETS.items() if name != missing})


def test_every_service_that_the_system_needs_is_there(compose):
    assert set(compose["services"]) == {"postgres", "redis", *OURS}


def test_all_processes_of_up_run_with_the_same_commands(compose):
    planned = {spec.argv for spec in plan_processes(ingest_workers=4, python="python")}

    composed = {tuple(compose["services"][name]["command"]) for name in OURS if name != "migrate"}

    assert composed == planned


@pytest.mark.parametrize("name", OURS)
def test_each_command_is_taken_by_its_real_entry_point(compose, name, monkeypatch):
    service = compose["services"][name]
    for variable, value in service["environment"].items():
        monkeypatch.setenv(variable, value)
    command = service["command"]

    if command[0] == "clipbert":
        parse_clipbert(command[1:])
    elif command[:3] == ["python", "-m", "celery"]:
        parse_celery(command[3:])
    else:
        assert command == ["python", "-m", "api"]
        assert importlib.util.find_spec("api.__main__") is not None


@pytest.mark.parametrize("name", OURS)
def test_each_variable_is_a_field_of_its_settings_and_is_accepted(compose, name, monkeypatch):
    environment = compose["services"][name]["environment"]
    for variable, value in environment.items():
        prefix = f"{variable.split('_', maxsplit=1)[0]}_"
        field = variable.removeprefix(prefix).lower()
        assert field in SETTINGS[prefix].model_fields, f"{variable} is read by nobody"
        monkeypatch.setenv(variable, value)

    assert "pg-secret" in StoreSettings().database_url
    assert "redis-secret" in WorkerSettings().redis_url
    assert ApiSettings().store.media_roots == (Path("/media"),)


def test_the_gpu_workers_reserve_one_nvidia_device_and_the_others_none(compose):
    reserving = {
        name: service["deploy"]["resources"]["reservations"]["devices"]
        for name, service in compose["services"].items()
        if "deploy" in service
    }

    assert list(reserving) == ["worker-gpu", "finetune-gpu"]
    for devices in reserving.values():
        # By its number: `count: 1` gives every container the first one.
        assert devices == [{"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}]
    assert compose["services"]["worker-gpu"]["environment"]["WORKER_DEVICE"] == "cuda"
    assert compose["services"]["finetune-gpu"]["environment"]["WORKER_DEVICE"] == "cuda"
    for name in ("worker-cpu", "finetune-cpu"):
        assert compose["services"][name]["profiles"] == ["cpu"]


def test_each_gpu_worker_can_be_given_another_gpu():
    compose = read_compose({**SECRETS, "GPU": "2", "FINETUNE_GPU": "3"})

    ids = {
        name: compose["services"][name]["deploy"]["resources"]["reservations"]["devices"][0][
            "device_ids"
        ]
        for name in ("worker-gpu", "finetune-gpu")
    }

    assert ids == {"worker-gpu": ["2"], "finetune-gpu": ["3"]}


def test_both_workers_of_a_gpu_agree_on_how_its_memory_is_shared():
    compose = read_compose({**SECRETS, "FINETUNE_MEMORY_SHARE": "0.3"})

    for name in ("worker-gpu", "finetune-gpu"):
        environment = compose["services"][name]["environment"]
        assert environment["WORKER_FINETUNE_MEMORY_SHARE"] == "0.3"


def test_finetunes_go_on_from_a_volume_and_share_frames_in_memory(compose):
    for name in ("finetune-gpu", "finetune-cpu"):
        service = compose["services"][name]
        blobs = service["environment"]["STORE_BLOB_URL"].removeprefix("file://")
        assert f"blobs:{blobs}" in service["volumes"]
        assert "WORKER_RUN_FOLDER" not in service["environment"]
        assert service["shm_size"] == "2gb"


def test_a_stopped_finetune_has_the_time_to_save_a_checkpoint(compose):
    grace_seconds = int(compose["services"]["finetune-gpu"]["stop_grace_period"].removesuffix("s"))

    assert WorkerSettings().finetune_stop_seconds + 10 <= grace_seconds


def test_redis_drops_no_queue_and_survives_a_restart(compose):
    command = compose["services"]["redis"]["command"]

    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"
    assert "redis:/data" in compose["services"]["redis"]["volumes"]


def test_everything_waits_for_the_schema_and_the_schema_for_a_healthy_database(compose):
    services = compose["services"]

    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in OURS:
        if name != "migrate":
            waits = services[name]["depends_on"]
            assert waits["migrate"]["condition"] == "service_completed_successfully"
            assert waits["redis"]["condition"] == "service_healthy"


def test_services_that_others_wait_for_or_that_can_hang_have_a_health_check(compose):
    checked = {name for name, service in compose["services"].items() if "healthcheck" in service}

    assert checked == {"postgres", "redis", *OURS} - {"migrate", "beat"}


def test_health_checks_ping_the_worker_by_the_name_it_has(compose):
    for name in OURS:
        command = compose["services"][name]["command"]
        if "worker" not in command:
            continue
        node = command[command.index("-n") + 1].replace("%h", "$HOSTNAME")
        check = compose["services"][name]["healthcheck"]["test"]
        assert check[1].endswith(f"inspect ping -t 10 -d {node}")
        parse_celery(check[1].replace("$HOSTNAME", "host").split()[3:])


def test_every_named_volume_is_declared(compose):
    named = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if not volume.startswith((".", "/"))
    }

    assert named == set(compose["volumes"])


def test_the_dockerfile_copies_every_package_and_is_not_run_as_root():
    dockerfile = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().split()

    for package in packages():
        assert f"COPY {package} /src/{package}" in dockerfile
        assert f"!{package}" in ignored
    for file in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        assert f"!{file}" in ignored
        assert (ROOT / file).is_file()
    assert dockerfile.rstrip().splitlines()[-1] == 'CMD ["python", "-m", "api"]'
    assert "USER clipbert" in dockerfile


def test_the_example_env_file_names_each_variable_of_the_file():
    text = (ROOT / "docker-compose.yml").read_text()
    example = (ROOT / ".env.example").read_text()

    for name in [*SECRETS, "MEDIA_ROOT", "API_ADDRESS", "API_PORT", "FINETUNE_MEMORY_SHARE"]:
        assert f"${{{name}:" in text
        assert f"\n{name}=" in example


def packages():
    """The packages that the wheel has, by pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    found = [path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()]
    return [name for name in found if any(fnmatch(name, pattern) for pattern in patterns)]


def parse_clipbert(arguments):
    command = get_command(clipbert_app)
    with command.make_context("clipbert", [*arguments]) as context:
        name, subcommand, rest = command.resolve_command(context, [*arguments])
        subcommand.make_context(name, rest, parent=context)


def parse_celery(arguments):
    """Do what `celery ARGUMENTS` does up to the moment where the command would start."""
    with celery.make_context("celery", [*arguments]) as context:
        name, subcommand, rest = celery.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context.invoked_subcommand = name
        context.invoke(celery.callback, **context.params)  # imports the app that -A names
        parsed = subcommand.make_context(name, rest, parent=context)
        app = context.obj.app
    assert app.main == "workers"
    assert parsed.args == []
    if name == "worker":
        assert set(parsed.params["queues"]) <= set(app.amqp.queues)
        assert parsed.params["concurrency"] >= 1


def read_compose(variables):
    """Read the file with ${NAME}, ${NAME:-default} and ${NAME:?message} filled in.

    Raises:
        KeyError: a variable without a default is not set.
    """
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return fill(document, variables)


def fill(value, variables):
    if isinstance(value, dict):
        return {key: fill(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match):
        dollar, name, operator, rest = match.groups()
        if dollar:
            return "$"
        if variables.get(name):
            return variables[name]
        if operator == ":-":
            return rest
        raise KeyError(f"{name}: {rest or 'not set'}")

    return VARIABLE.sub(replace, value)
