"""klopf without Python: built, installed, moved, and used by a C++ program elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONSUMER = ROOT / "tests" / "cpp" / "consumer"
INCLUDE = ROOT / "cpp" / "include"
HEADERS = sorted(path.relative_to(INCLUDE) for path in INCLUDE.rglob("*.hpp"))


def program(*names: str) -> str | None:
    """The first of these programs beside Python, for an environment that is not on PATH, or on PATH."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return next(filter(None, (shutil.which(name, path=places) for name in names)), None)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Its output, if it succeeds; variables that choose a level or threads do not reach it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KLOPF_")}
    done = subprocess.run([str(word) for word in command], env=environment, text=True, capture_output=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done


@dataclass(frozen=True)
class Tools:
    cmake: str
    generator: tuple[str, ...]

    def configure(self, source: Path, build: Path, *options: str) -> None:
        run(self.cmake, "-S", source, "-B", build, *self.generator, *options)

    def build(self, build: Path) -> None:
        run(self.cmake, "--build", build, "--parallel", "2")


@dataclass(frozen=True)
class Installed:
    build: Path
    prefix: Path
    compiler: str


@pytest.fixture(scope="session")
def tools() -> Tools:
    cmake, ninja = program("cmake"), program("ninja")
    if cmake is None:
        pytest.skip("needs cmake: pip install cmake ninja")
    if not program(os.environ.get("CXX", "").split(" ")[0] or "c++", "g++", "clang++"):
        pytest.skip("needs a C++ compiler")
    if ninja is None and program("make") is None:
        pytest.skip("needs ninja or make: pip install ninja")
    return Tools(cmake, ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}") if ninja else ())


@pytest.fixture(scope="session")
def installed(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Compiled for the baseline and without much optimization, which is quicker."""
    folder = tmp_path_factory.mktemp("cpp")
    build, prefix = folder / "build", folder / "moved"
    quick = ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1", "-DKLOPF_LEVELS=")
    tools.configure(ROOT, build, *quick, "-DKLOPF_TESTS=ON")
    tools.build(build)
    run(tools.cmake, "--install", build, "--prefix", folder / "prefix")
    (folder / "prefix").rename(prefix)
    compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", (build / "CMakeCache.txt").read_text(), re.M)
    assert compiler is not None
    return Installed(build, prefix, compiler[1])


def test_a_program_elsewhere_finds_klopf_and_learns(
    tools: Tools, installed: Installed, tmp_path: Path
) -> None:
    shutil.copytree(CONSUMER, tmp_path / "consumer")
    tools.configure(tmp_path / "consumer", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed.prefix}")
    tools.build(tmp_path / "build")
    lines = run(tmp_path / "build" / "consumer").stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        found = re.fullmatch(r"run \d: loss (\d\.\d+) -> (\d\.\d+), accuracy (\d\.\d+)", line)
        assert found is not None, line
        before, after, accuracy = map(float, found.groups())
        assert after < before / 2 and accuracy > 0.9


def test_checks_in_cpp(installed: Installed) -> None:
    assert "all is well" in run(installed.build / "klopf_checks").stdout


def test_every_header_compiles_alone(installed: Installed, tmp_path: Path) -> None:
    include = installed.prefix / "include"
    assert sorted(path.relative_to(include) for path in include.rglob("*.*")) == HEADERS
    sources = []
    for header in HEADERS:
        sources.append(tmp_path / f"{'-'.join(header.parts)}.cpp")
        sources[-1].write_text(f'#include "{header.as_posix()}"\n' * 2)
    strict = ("-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")
    run(installed.compiler, *strict, f"-I{include}", *sources)


def test_klopf_as_a_subdirectory(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "main.cpp").touch()
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(app LANGUAGES CXX)\n"
        f'add_subdirectory("{ROOT.as_posix()}" klopf)\n'
        "add_executable(app main.cpp)\ntarget_link_libraries(app PRIVATE klopf::klopf)\n"
    )
    tools.configure(tmp_path, tmp_path / "build")


def test_unknown_levels_are_refused(tools: Tools, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"KLOPF_LEVELS must be a list of avx2, avx512, got neon"):
        tools.configure(ROOT, tmp_path, "-DKLOPF_LEVELS=neon")


@pytest.mark.parametrize("name", ["CMakeLists.txt", "main.cpp"])
def test_the_page_shows_the_program(name: str) -> None:
    page = (ROOT / "docs" / "cpp.md").read_text(encoding="utf-8")
    assert (CONSUMER / name).read_text(encoding="utf-8") in page
