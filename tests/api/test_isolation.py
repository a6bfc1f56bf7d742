import subprocess
import sys

BUILD_AN_APP = """
import sys
from pathlib import Path
from api.main import create_app
from api.settings import ApiSettings
from store.settings import StoreSettings

url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
store = StoreSettings(database_url=url, blob_url=sys.argv[1])
app = create_app(ApiSettings(store=store, redis_url="redis://127.0.0.1:1/0"))
assert app.openapi()["paths"]
print(*sorted(sys.modules))
"""


MODEL = {
    "clipbert.model.network",
    "clipbert.inference.clipbert",
    "clipbert.video.decode",
    "workers.child.lifecycle",
    "workers.child.context",
}


def test_the_process_of_the_api_loads_neither_torch_nor_the_model_nor_a_decoder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BUILD_AN_APP, tmp_path.as_uri()],
        check=True,
        capture_output=True,
        text=True,
    )

    loaded = set(done.stdout.split())
    assert {"api", "store", "fastapi"} <= loaded
    assert "clipbert.datasets.kinds" in loaded  # labels are read by the library
    assert not loaded & {"torch", "torchvision", "transformers", "av", "timm", "accelerate"}
    assert not loaded & MODEL
