"""Help, man pages and completion exist for every verb, and work where they are used."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from runner import LODGE


def lodge(*words, **kwargs):
    return subprocess.run([LODGE, *words], capture_output=True, text=True, timeout=30, **kwargs)


def output(*words):
    result = lodge(*words)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def verbs():
    return [line.split() for line in output("help", "--list").splitlines()]


def groups():
    """Every verb and every group above one."""
    return sorted({tuple(v[:n]) for v in verbs() for n in range(1, len(v) + 1)})


def test_overview_names_every_verb():
    overview = output("help")
    assert overview == output("--help") == output()
    named = re.findall(r"^  (\S+) +\S", overview, re.M)
    for verb in verbs():
        assert verb[0] in named, verb


def test_help_of_every_verb():
    for verb in groups():
        text = output("help", *verb)
        assert text == output(*verb, "--help"), verb
        assert text.startswith(f"lodge {' '.join(verb)} - "), verb
        assert max(map(len, text.splitlines())) <= 100, verb
        summary = text.splitlines()[0].split(" - ", 1)[1]
        assert summary and summary[0].islower() | (not summary[0].isalpha()) | summary[:2].isupper()
        assert not summary.endswith("."), verb
        assert "\x1b" not in text, "plain when not a terminal"


def test_options_are_told_apart():
    for verb in verbs():
        options = re.findall(r"^  (?:-(\w), |    )--([a-z0-9-]+)", output("help", *verb), re.M)
        letters = [letter for letter, _ in options if letter]
        names = [name for _, name in options]
        assert len(set(letters)) == len(letters), verb
        assert len(set(names)) == len(names), verb


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_man_pages_are_clean():
    for verb in [()] + groups():
        page = output("help", "--man", *verb)
        lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning"], input=page, text=True,
                              capture_output=True, timeout=30)
        assert (lint.returncode, lint.stdout) == (0, ""), verb
        for option in re.findall(r"^ {2}(?:-\w, |    )(--[a-z0-9-]+)", output("help", *verb), re.M):
            assert option.replace("-", r"\-") in page, (verb, option)


def test_main_page_says_what_scripts_need():
    page = output("help", "--man")
    for word in ["125", "126", "127", "128+n", "LODGE_STATE_DIR", "LODGE_RUNTIME_DIR",
                 "LODGE_LOG_LEVEL", "/var/lib/lodge", "/run/lodge"]:
        assert word in page, word


@pytest.mark.parametrize("words, message", [
    (["hlep"], "lodge: unknown verb 'hlep' (did you mean 'help'? see 'lodge help')"),
    (["help", "--mna"], "lodge: unknown option '--mna' (did you mean '--man'? see 'lodge help help')"),
    (["help", "hlep"], "lodge: there is no verb 'hlep' (did you mean 'help'?)"),
    (["version", "x"], "lodge: unexpected operand 'x': lodge version (see 'lodge help version')"),
    (["--log-level", "loud", "version"],
     "lodge: --log-level: 'loud' is not one of error, warn, info, debug (see 'lodge help')"),
])
def test_usage_errors_are_one_line_and_125(words, message):
    result = lodge(*words)
    assert (result.returncode, result.stdout, result.stderr) == (125, "", message + "\n")


def test_wrong_environment_is_named():
    result = lodge("version", env={"LODGE_LOG_LEVEL": "loud"})
    assert result.returncode == 125
    assert result.stderr.startswith("lodge: LODGE_LOG_LEVEL: 'loud' is not a log level")
    assert result.stderr.count("\n") == 1


def test_output_that_cannot_be_written_is_a_failure():
    with open("/dev/full", "w") as full:
        result = subprocess.run([LODGE, "help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 125
    assert result.stderr == "lodge: cannot write the output: No space left on device\n"


def test_version():
    assert re.fullmatch(r"lodge \d+\.\d+\.\d+\n", output("version"))
    assert output("version") == output("--version")


def test_oci_name(tmp_path):
    oci = tmp_path / "lodge-oci"
    oci.symlink_to(LODGE)
    version = subprocess.run([oci, "--version"], capture_output=True, text=True)
    assert version.stdout == "lodge-oci" + output("version")[len("lodge"):]
    refused = subprocess.run([oci, "create", "x"], capture_output=True, text=True)
    assert refused.returncode == 125
    assert "isn't part of this version" in refused.stderr
    assert refused.stderr.count("\n") == 1


def complete_in_bash(*words):
    """What bash offers at the end of `lodge WORDS`."""
    script = """
        source <("$0" completion bash) || exit
        COMP_WORDS=("$0" "$@") COMP_CWORD=$#
        _lodge "$0"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    result = subprocess.run(["bash", "--norc", "-c", script, LODGE, *words], capture_output=True,
                            text=True, timeout=30)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.split()


def test_bash_completes_every_verb():
    for verb in verbs():
        for n in range(len(verb)):
            assert verb[n] in complete_in_bash(*verb[:n], verb[n][:2]), verb
            assert verb[n] in complete_in_bash("help", *verb[:n], ""), verb


def test_bash_completes_every_option():
    for verb in verbs():
        offered = complete_in_bash(*verb, "--")
        options = re.findall(r"^ {2}(?:-\w, |    )(--[a-z0-9-]+)", output("help", *verb), re.M)
        assert sorted(offered) == sorted(options + ["--help"]), verb


def test_bash_completes_values(tmp_path):
    assert complete_in_bash("--log-level", "") == ["error", "warn", "info", "debug"]
    # Bash hands --log-level=de over as three words.
    assert complete_in_bash("--log-level", "=", "de") == ["debug"]
    assert complete_in_bash("completion", "z") == ["zsh"]
    assert complete_in_bash("version", "") == []


ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; autoload -U compinit; compinit -u -D; source <("$LODGE" completion zsh)'
zpty -w shell 'compdef _lodge $LODGE:t; path=($LODGE:h $path); echo REA""DY'
zpty -r shell seen '*READY*'
zpty -w -n shell $'lodge versi\\t --hel\\t; echo DO""NE\\n'
zpty -r shell seen '*DONE*'
print -r -- $seen
"""


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_completes(tmp_path):
    script = tmp_path / "_lodge"
    script.write_text(output("completion", "zsh"))
    subprocess.run(["zsh", "-n", script], check=True, timeout=30)
    # Completed for real, in a shell on a pseudo terminal: the words were cut short.
    result = subprocess.run(["zsh", "-f", "-c", ZSH], capture_output=True, text=True, timeout=60,
                            env={"LODGE": str(LODGE), "PATH": "/usr/bin:/bin", "TERM": "xterm",
                                 "HOME": str(tmp_path)})
    assert "print Lodge's version" in result.stdout, result.stdout + result.stderr
