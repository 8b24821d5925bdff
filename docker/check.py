"""Checks Dockerfile and compose.yaml without a container engine: what they name exists, and they keep their promises.
Usage: check.py WEIR_BINARY"""

import json
import pathlib
import re
import subprocess
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
checks = 0


def expect(condition, message):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"docker/check.py: {message}")


def instructions(text):
    text = re.sub(r"(?m)^\s*#.*\n", "", text)
    text = re.sub(r"\\\n", " ", text)
    for line in filter(None, (line.strip() for line in text.splitlines())):
        word, _, rest = line.partition(" ")
        expect(word in KNOWN, f"unknown instruction {word}")
        yield word, rest.strip()


def stages(lines):
    found = []
    for word, rest in lines:
        if word == "FROM":
            found.append((rest, []))
        else:
            found[-1][1].append((word, rest))
    return found


def dockerfile(flags):
    (build, build_lines), (runtime, lines) = stages(instructions((HERE / "Dockerfile").read_text()))
    wanted = re.search(r'rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text()).group(1)
    expect(build.startswith(f"rust:{wanted}-"), f"the build stage is {build}, Cargo.toml asks for Rust {wanted}")
    expect(build.endswith(" AS build") and "bookworm" in build and "bookworm" in runtime, "stages of different Debians")
    expect((ROOT / "Cargo.lock").exists() and any("--locked" in rest for _, rest in build_lines), "the build is not locked")
    ignored = (HERE / "Dockerfile.dockerignore").read_text().split()
    expect("src" not in ignored and "assets" not in ignored, "the build's sources are ignored")
    manifest = (ROOT / "Cargo.toml").read_text()
    for path in re.findall(r'(?m)^path = "([^"]+)"', manifest):
        expect(path.split("/")[0] not in ignored, f"Cargo.toml names {path}, which is ignored")
    names = [word for word, _ in lines]
    user = names.index("USER")
    expect(lines[user][1].split(":")[0] not in ("root", "0"), "it runs as root")
    expect(not any(word == "RUN" for word in names[user:]), "RUN after USER")
    values = dict(lines)
    expect(set(json.loads(values["VOLUME"])) == {"/library", "/state"}, "volumes")
    expect(values["EXPOSE"] == "8080", "port")
    command = json.loads(values["ENTRYPOINT"]) + json.loads(values["CMD"])
    expect(command == ["weir", "serve"], "command")
    variables = dict(pair.split("=", 1) for pair in values["ENV"].split())
    for name in variables:
        expect("--" + name.removeprefix("WEIR_").lower().replace("_", "-") in flags, f"weir serve knows no {name}")
    expect(variables["WEIR_LISTEN"].endswith(":" + values["EXPOSE"]), "it listens elsewhere than it exposes")
    probe = json.loads(values["HEALTHCHECK"].split("CMD", 1)[1])
    expect(variables["WEIR_ADMIN"].replace(":", "/") in probe[2], "the health check asks elsewhere than the admin listener")
    return variables


def compose(flags, variables):
    service = yaml.safe_load((HERE / "compose.yaml").read_text())["services"]["weir"]
    expect((HERE / service["build"]["context"] / service["build"]["dockerfile"]).exists(), "the Dockerfile is elsewhere")
    for name, value in service["environment"].items():
        expect("--" + name.removeprefix("WEIR_").lower().replace("_", "-") in flags, f"weir serve knows no {name}")
        expect(name not in variables or variables[name] == value, f"{name} differs from the image's")
    targets = {volume.split(":")[-1] for volume in service["volumes"]}
    expect({"/library", "/state"} <= targets, f"volumes: {targets}")
    expect(all(port.endswith(":8080") for port in service["ports"]), "ports")


def main():
    help_text = subprocess.run([sys.argv[1], "serve", "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"--[a-z][a-z-]+", help_text))
    compose(flags, dockerfile(flags))
    print(f"docker: {checks} checks passed")


if __name__ == "__main__":
    main()
