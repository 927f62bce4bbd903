import threading

from core.events import Event, Meter, Stage, Watch, ignore, ticking, watching


def test_rate_and_eta_are_measured() -> None:
    told: list[Event] = []
    now = [0.0]
    meter = Meter(told.append, Stage.STREAM, 100, interval=1.0, clock=lambda: now[0])
    for second in range(1, 6):
        now[0] = float(second)
        meter.advance(10)
    assert told[-1].done == 50
    assert told[-1].rate == 10.0
    assert told[-1].eta == 5.0


def test_events_are_not_told_more_often_than_asked() -> None:
    told: list[Event] = []
    now = [0.0]
    meter = Meter(told.append, Stage.STREAM, 1000, interval=1.0, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 0.1
        meter.advance(1)
    assert 9 <= len(told) <= 11


def test_a_stall_is_named() -> None:
    told: list[Event] = []
    now = [0.0]
    meter = Meter(told.append, Stage.STREAM, 100, clock=lambda: now[0])
    meter.advance(10)
    now[0] = 30.0
    meter.tell()
    assert told[-1].stalled == 30.0
    assert told[-1].done == 10


def test_a_stall_is_told_while_it_lasts() -> None:
    told = threading.Event()
    meter = Meter(
        lambda event: told.set() if event.stalled else None, Stage.STREAM, 100, clock=iter(range(0, 10**6, 20)).__next__
    )
    with ticking(meter, interval=0.01):
        assert told.wait(60)


def test_a_watch_names_a_stall_and_its_end_and_nothing_else() -> None:
    told: list[Event] = []
    now = [0.0]
    watch = Watch(told.append, Stage.PREFLIGHT, "Checking", clock=lambda: now[0])
    now[0] = 9.0
    watch.tell()
    watch(17)
    now[0] = 18.0
    watch.tell()
    assert told == []
    now[0] = 21.0
    watch.tell()
    watch(0)
    watch.tell()
    watch.tell()
    assert told == [
        Event(stage=Stage.PREFLIGHT, message="Checking", stalled=12.0),
        Event(stage=Stage.PREFLIGHT, message="Checking: it goes on after 12 s"),
    ]


def test_a_watch_says_how_long_a_stall_was_until_the_first_sign_of_life() -> None:
    told: list[Event] = []
    now = [0.0]
    watch = Watch(told.append, Stage.PREFLIGHT, "Checking", clock=lambda: now[0])
    now[0] = 15.0
    watch.tell()
    now[0] = 22.0
    watch()
    now[0] = 26.0
    watch()
    watch.tell()
    assert [event.message for event in told] == ["Checking", "Checking: it goes on after 22 s"]


def test_a_watch_names_what_is_being_done() -> None:
    told: list[Event] = []
    now = [0.0]
    watch = Watch(told.append, Stage.PREFLIGHT, "Checking", clock=lambda: now[0])
    with watch.doing("Reading"):
        now[0] = 11.0
        watch.tell()
    # The end of the stall is told with what stalled, before anything else is done.
    now[0] = 21.5
    watch.tell()
    assert [(event.message, event.stalled) for event in told] == [
        ("Reading", 11.0),
        ("Reading: it goes on after 11 s", 0.0),
        ("Checking", 10.5),
    ]


def test_a_person_who_is_asked_is_no_stall() -> None:
    told: list[Event] = []
    now = [0.0]
    watch = Watch(told.append, Stage.PREFLIGHT, "Opening", clock=lambda: now[0])
    now[0] = 12.0
    watch.tell()
    with watch.asking():
        # The stall before the question is over, and the line for the answer is free.
        assert told[-1].message == "Opening: it goes on after 12 s"
        now[0] = 600.0
        watch.tell()
    now[0] = 605.0
    watch.tell()
    assert len(told) == 2
    now[0] = 610.0
    watch.tell()
    assert told[-1].stalled == 10.0


def test_the_end_of_a_stall_is_never_heard_before_the_stall() -> None:
    """One thread has chosen to tell of the stall; before it does, another one's sign of life ends it."""
    told: list[Event] = []
    chosen, moved = threading.Event(), threading.Event()
    now = [12.0]

    def sink(event: Event) -> None:
        if event.stalled:
            chosen.set()
            # Longer than the other thread needs where nothing holds it back.
            moved.wait(0.3)
        told.append(event)

    watch = Watch(sink, Stage.PREFLIGHT, "Opening", clock=lambda: now[0])
    now[0] = 24.0
    ticker = threading.Thread(target=watch.tell)
    ticker.start()
    assert chosen.wait(60)
    with watch.doing("Reading"):
        moved.set()
    ticker.join(60)
    assert [event.stalled for event in told] == [12.0, 0.0]


def test_a_watch_looks_while_the_work_waits() -> None:
    told = threading.Event()
    watch = Watch(
        lambda event: told.set() if event.stalled else None,
        Stage.PREFLIGHT,
        "Checking",
        clock=iter(range(0, 10**6, 20)).__next__,
    )
    with watching(watch, interval=0.01):
        assert told.wait(60)


def test_counting_from_many_threads_loses_nothing() -> None:
    meter = Meter(ignore, Stage.STREAM, 0, interval=0.0)
    threads = [threading.Thread(target=lambda: [meter.advance(1) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.done == 8000
