"""Settings in words, and how two runs differ."""

import pytest

from studio.gallery.details import Difference, differences, readable, steps_to_make, value_in_words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        *((True, "on"), (False, "off"), (None, "none"), ([], "none"), ("", "none"), (0, "0")),
        *(
            (0.5, "0.5"),
            (["a", "b"], "a, b"),
            ({"a": 1}, '{"a": 1}'),
            ([{"a": "ü"}], '[{"a": "ü"}]'),
        ),
    ],
)
def test_values_in_words(value, words):
    assert value_in_words(value) == words


def test_declared_settings_come_first_by_their_labels_and_units():
    settings, _ = readable({"odd_one": 1, "rotation_angle": 5.0, "Xdim": 64, "commit_sha": "abc"})
    labels = [setting.label for setting in settings]
    assert labels == ["Engine", "Xdim (px)", "Rotation angle (degrees)", "Odd one", "Commit"]


def test_what_a_switch_that_is_off_controls_was_not_used():
    details = {"use_mse_regularization": False, "mse_weight": 0.5, "set_seed": False, "seed": 7}
    used = {setting.label: setting.used for setting in readable(details)[0]}
    assert used["MSE weight"] is False and used["Seed"] is True


def test_bookkeeping_is_listed_apart():
    details = {"heartbeat": "now", "seed": 7, "losses": {"total": 1}, "inputs_sha256": "ab"}
    details["loss_history"] = [[1, 0.5]]
    settings, records = readable(details | {"warnings": ["too long"]})
    assert [setting.label for setting in settings] == ["Engine", "Seed", "Warnings"]
    assert [record.label for record in records] == [
        "Heartbeat",
        "Losses",
        "Inputs sha256",
        "Loss history",
    ]


@pytest.mark.parametrize(
    ("planned", "made", "left"),
    [
        (400, 0, 400),
        (400, 20, 380),
        (400, None, 400),
        (-1, 0, None),
        ("x", 5, None),
        (True, 0, None),
    ],
)
def test_steps_that_are_still_to_be_made(planned, made, left):
    assert steps_to_make({"planned_num_steps": planned, "num_steps": made}) == left


def test_differences_leave_out_bookkeeping():
    one = {"run_id": "a", "start_time": "1", "stage": 1, "cutn": 8, "text_input": "same"}
    two = {"run_id": "b", "start_time": "2", "stage": 2, "cutn": 9, "text_input": "same", "new": 1}
    assert differences(one, two) == [Difference("Cutouts", "8", "9"), Difference("New", "–", "1")]
