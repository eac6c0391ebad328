"""A step's lines with the rows of their states."""

from __future__ import annotations

from textwrap import dedent

from mixc.compiler.language.load import load_text
from mixc.ir.mixer import Recurrence
from mixc.show.description import describe
from mixc.show.step_lines import step_lines


def shown(body: str) -> list[str]:
    """The lines of the first recurrence of a spec with these `inputs` and forms."""
    stages = load_text("mixer: m\n" + dedent(body)).stages
    found = [stage for stage in stages if isinstance(stage, Recurrence)][-1]
    return [f"{line.target} = {line.text}" for line in step_lines(found)]


def test_states_say_which_row_they_are_of() -> None:
    assert shown("""
        inputs: {k: [B, T, D], v: [B, T, E], g: [B, T]}
        recurrence:
          over: T
          state: {S: [D, E]}
          step:
            - early = sum(k * S, D)
            - S = exp(g) * S
            - S = S + k * (v - early)
            - o = sum(k * S, D)
        outputs: {o: [B, T, E]}
    """) == [
        "early = sum(k * S[t-1], D)",
        "S' = exp(g) * S[t-1]",
        "S[t] = S' + k * (v - early)",
        "o = sum(k * S[t], D)",
    ]


def test_inner_loops_have_rounds() -> None:
    assert shown("""
        inputs: {k: [B, T*R, D], v: [B, T*R, E], g: [B, T]}
        recurrence:
          over: T
          state: {S: [D, E]}
          step:
            - S = exp(g) * S
            - over: R
              step:
                - S = S + k * (v - sum(k * S, D))
            - o = S
        outputs: {o: [B, T, D, E]}
    """) == [
        "S' = exp(g) * S[t-1]",
        "S[t, r] = S[t, r-1] + k * (v - sum(k * S[t, r-1], D))",
        "o = S[t]",
    ]


def test_a_stage_like_another_has_its_own_names_and_direction() -> None:
    assert shown("""
        inputs: {x: [B, T], y: [B, T]}
        stages:
          - name: one
            recurrence:
              over: T
              state: {h: []}
              step: [h = 0.5 * h + x, o = h]
          - {like: one, suffix: _r, direction: backward, with: {x: y}}
        outputs: {o: [B, T], o_r: [B, T]}
    """) == ["h_r[t] = 0.5 * h_r[t+1] + y", "o_r = h_r[t]"]


def test_show_has_states_resets_and_axes() -> None:
    mixer = load_text(
        dedent("""
        mixer: m
        inputs: {x: [B, T], done: {dims: [B, T], dtype: bool}, h0: [B]}
        recurrence:
          over: T
          state: {h: []}
          initial: {h: h0}
          reset: done
          step: [h = 0.5 * h + x]
        outputs: {h: [B]}
        """)
    )
    section = next(s for s in describe(mixer) if s.title.startswith("recurrence"))
    assert section.title == "recurrence over T"
    assert [str(line) for line in section.lines] == [
        "h[B]  # state, starts at h0",
        "reset[B, T] = done  # states are 0 before these rows",
        "h[t][B] = 0.5 * h[t-1] + x",
    ]
