"""What watchers ask: whether the daemon lives, and whether it can do its work. Bad input: a disk that is too small."""


def test_watchers_learn_whether_it_lives_and_whether_it_can_work(portal):
    for listener in (portal.public, portal.local):
        assert listener.get("/livez").body == b"true"
        assert listener.get("/readyz").body == b"true"


def test_a_full_disk_is_not_ready_and_only_the_local_listener_says_why(make_portal):
    full = make_portal(data__reserve="1024000GB")
    assert full.public.get("/livez").status == 200
    assert (full.public.get("/readyz").status, full.public.get("/readyz").json) == (503, {"error": "not ready"})
    assert "no room" in full.local.get("/readyz").json["error"]
