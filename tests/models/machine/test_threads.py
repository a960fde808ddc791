from models.machine.threads import choose_waiting, is_idle


def load(tmp_path, text):
    path = tmp_path / "loadavg"
    path.write_text(text)
    return path


def test_waiting_threads_spin_where_nothing_else_runs(tmp_path):
    environment: dict[str, str] = {}
    choose_waiting(environment, load(tmp_path, "1.90 0.57 0.31 1/137 30875\n"))
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert int(environment["GOMP_SPINCOUNT"]) > 0


def test_waiting_threads_sleep_beside_another_program(tmp_path):
    environment: dict[str, str] = {}
    choose_waiting(environment, load(tmp_path, "0.10 0.57 0.31 2/137 30875\n"))
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_what_the_user_set_stays(tmp_path):
    environment = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}
    choose_waiting(environment, load(tmp_path, "0.00 0.00 0.00 1/137 30875\n"))
    assert environment == {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}


def test_a_system_that_does_not_tell_counts_as_busy(tmp_path):
    assert not is_idle(tmp_path / "none")
    assert not is_idle(load(tmp_path, "strange\n"))
