"""Exported folders are what build systems take: built with those here, the rest by layout."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from osbc_deploy.firmware.library import export_c
from osbc_deploy.firmware.runtime import export_runtime
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.testing import Case, random_networks

CONSUMER = """
cmake_minimum_required(VERSION 3.16)
project(app C)

# What ESP-IDF and Zephyr define, as far as the folders use it.
function(idf_component_register)
    cmake_parse_arguments(IDF "" "" "SRCS;INCLUDE_DIRS" ${ARGN})
    add_library(idf STATIC ${IDF_SRCS})
    target_include_directories(idf PUBLIC ${IDF_INCLUDE_DIRS})
endfunction()
function(zephyr_library_named name)
    add_library(${name}_zephyr STATIC)
    set(ZEPHYR_LIBRARY ${name}_zephyr PARENT_SCOPE)
endfunction()
function(zephyr_include_directories)
    target_include_directories(${ZEPHYR_LIBRARY} PUBLIC ${ARGN})
endfunction()
function(zephyr_library_sources)
    target_sources(${ZEPHYR_LIBRARY} PRIVATE ${ARGN})
endfunction()

find_package(net REQUIRED)
add_executable(packaged app.c)
target_link_libraries(packaged net::net)

set(ESP_PLATFORM 1)
add_subdirectory(@lib@ idf)
add_executable(esp app.c)
target_link_libraries(esp idf)

set(CONFIG_NET y)
add_subdirectory(@lib@/zephyr zephyr)
add_executable(zephyr_app app.c)
target_link_libraries(zephyr_app net_zephyr)
"""
APP = """
#include "net.h"
int main(void) { return NET_INPUTS == 12 ? 0 : 1; }
"""


def sh(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def case(formats: NumberFormats) -> Case:
    return random_networks(1, formats, start=5)[0]


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_cmake_esp_idf_and_zephyr_build_the_folder(case: Case, tmp_path: Path) -> None:
    library, app = tmp_path / "lib", tmp_path / "app"
    export_c(case.network, library, name="net")
    sh("cmake", "-S", library, "-B", tmp_path / "b", f"-DCMAKE_INSTALL_PREFIX={tmp_path / 'there'}")
    sh("cmake", "--build", tmp_path / "b", "--target", "install")
    sh("ctest", "--test-dir", tmp_path / "b", "--output-on-failure")
    app.mkdir()
    (app / "CMakeLists.txt").write_text(CONSUMER.replace("@lib@", str(library)))
    inputs = int(np.prod(case.network.input_shape))
    (app / "app.c").write_text(APP.replace("12", str(inputs)))
    sh("cmake", "-S", app, "-B", app / "b", f"-DCMAKE_PREFIX_PATH={tmp_path / 'there'}")
    sh("cmake", "--build", app / "b")
    for program in ("packaged", "esp", "zephyr_app"):
        sh(app / "b" / program)


def test_arduino_and_platformio_find_what_their_layouts_ask_for(case: Case, tmp_path: Path) -> None:
    export_c(case.network, tmp_path / "c", name="net")
    export_runtime(case.network, tmp_path / "rt")
    for folder, header in (("c", "net.h"), ("rt", "osbc_runtime.h")):
        here = tmp_path / folder
        texts = {p: (here / p).read_text() for p in ("library.properties", "library.json")}
        pairs = dict(line.split("=", 1) for line in texts["library.properties"].splitlines())
        # Arduino's library specification 1.5 asks for these, without "src" for a flat folder.
        assert {"name", "version", "author", "maintainer", "sentence", "paragraph", "url"} < {
            *pairs
        }
        assert pairs["category"] in ("Data Processing", "Other")
        assert (pairs["architectures"], pairs["includes"]) == ("*", header)
        assert not (here / "src").exists()
        given = json.loads(texts["library.json"])
        assert re.fullmatch(r"\d+\.\d+\.\d+", given["version"])
        assert (here / given["headers"]).is_file()
        left_out = [f.removeprefix("-<").rstrip(">") for f in given["build"]["srcFilter"][1:]]
        built = [p for p in here.glob("*.c") if not any(p.match(f) for f in left_out)]
        program = tmp_path / f"{folder}.c"
        program.write_text(f'#include "{header}"\nint main(void) {{ return 0; }}\n')
        sh(
            "gcc",
            "-std=c99",
            "-Wall",
            "-Werror",
            f"-I{here}",
            *built,
            program,
            "-o",
            tmp_path / "a",
        )
