"""Who may import whom: one way only, so that each file can be read with those above it alone.

The table is in reading order. A file may import what stands beside it, and nothing else of the
package; everything beside it stands above it. A new file gets a line.
"""

import ast
import fnmatch
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "seer_jax"

MAY_IMPORT = {
    "cores": "",
    "interface": "",
    "types": "interface",
    # What an agent is made of.
    "augment": "types",
    "losses": "types",
    "conv": "types",
    "networks": "types conv",
    "flops": "",
    # An agent knows nothing of replay, environments, the freeze, the loop or a run's settings.
    "agents.*": "types augment losses networks flops",
    # Replay knows no networks, and the freeze only the `Agent` it is given.
    "memory": "types cores",
    "quantise": "types",
    "replay": "types quantise",
    "settling": "types replay",
    "config": "types agents.* quantise",
    "freezing": "types memory quantise replay config",
    # Environments are told apart here and nowhere else.
    "envs.names": "",
    "envs.pictures": "interface",
    "envs.restarts": "",
    "envs.parallel": "interface",
    "envs.gl": "cores interface",
    "envs.*": "interface envs.names envs.gl envs.pictures envs.restarts",
    # The loop and what it writes.
    "logger": "types",
    "checkpoint": "types",
    "video": "types logger",
    "programs": "types quantise replay config freezing",
    "seeds": "types memory replay programs",
    "dispatch": "types conv memory replay settling config programs seeds",
    "train": "types cores memory quantise replay settling config freezing seeds logger checkpoint "
    "video dispatch",
    # What a user calls; only `build` knows which environments and agents there are.
    "build": "types agents.* config envs.*",
    "policy": "types seeds config checkpoint dispatch build train",
    "presets": "types agents.* config",
    "transfer": "types seeds config checkpoint",
    "run": "types config memory presets checkpoint freezing train build transfer",
    "doctor": "types cores envs.*",
    "__init__": "policy",
    "agents": "",
    "envs": "",
}

# Packages that are heavy, or of which we want to know where we depend on them.
ONLY_IN = {
    "flax.linen": "networks",
    "optax": "agents.*",
    "dm_control": "envs.dmc doctor",
    "mujoco": "envs.dmc doctor",
    "envpool": "envs.atari doctor",
    "orbax": "checkpoint",
    "tensorboardX": "logger",
    "tqdm": "logger",
    "imageio_ffmpeg": "video doctor",
    "tyro": "run",
    "torch": "",
}


def module_name(path):
    """seer_jax/agents/curl_sac.py -> agents.curl_sac; a subpackage goes by its own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree):
    """Dotted names of all imports in a file, inside functions too: `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(module):
    return set(imports(ast.parse(MODULES[module].read_text())))


def own_modules(names):
    """Those of our modules that these imports name: `seer_jax.types.Row` is `types`."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "seer_jax":
            tails = (".".join(parts[1:end]) for end in range(len(parts), 1, -1))
            found.add(next((tail for tail in tails if tail in MODULES), "__init__"))
    return found


def matches(module, patterns):
    return any(fnmatch.fnmatch(module, pattern) for pattern in patterns.split())


def line_of(module):
    """The first line of the table that is about this module."""
    return next((name for name in MAY_IMPORT if fnmatch.fnmatch(module, name)), None)


def test_the_imports_are_found():
    source = "import jax.numpy as jnp\ndef f():\n    from seer_jax import types, replay\n"
    names = set(imports(ast.parse(source)))
    assert names == {"jax.numpy", "seer_jax.types", "seer_jax.replay"}
    assert own_modules(names | {"seer_jax.types.Row", "seer_jax.agents.curl_sac"}) == {
        "types",
        "replay",
        "agents.curl_sac",
    }
    assert "types" in own_modules(imports_of("agents.curl_sac"))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_it_may(module):
    assert line_of(module) is not None, f"{module} is not in MAY_IMPORT"
    allowed = MAY_IMPORT[line_of(module)]
    forbidden = [name for name in own_modules(imports_of(module)) if not matches(name, allowed)]
    assert not forbidden, f"{module} imports {forbidden}"


def test_the_table_goes_one_way():
    lines = list(MAY_IMPORT)
    for place, name in enumerate(lines):
        assert set(MAY_IMPORT[name].split()) <= set(lines[:place]), name


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package):
    uses = lambda name: name == package or name.startswith(package + ".")
    where = {module for module in MODULES if any(uses(name) for name in imports_of(module))}
    assert all(matches(module, ONLY_IN[package]) for module in where), where
