"""Sessions and passwords, as a login gets them."""

from testinfra.host import Host


def test_a_session_keeps_new_files_to_itself_and_ends_when_unused(host: Host) -> None:
    told = host.run("bash --login -c 'umask; ulimit -c; echo $TMOUT; TMOUT=0'")
    assert told.stdout.split() == ["0027", "0", "900"]
    assert told.rc != 0, "it could stay for longer"


def test_wrong_passwords_lock_a_name(host: Host) -> None:
    """Asked before a password is looked at, counted when it was wrong."""
    lines = host.check_output("cat /etc/pam.d/common-auth").splitlines()
    asked = [line.split() for line in lines if line and not line.startswith("#")]
    modules = [next(word for word in fields if word.endswith(".so")) for fields in asked]
    faillock = [i for i, module in enumerate(modules) if module == "pam_faillock.so"]
    assert len(faillock) == 2
    assert faillock[0] < modules.index("pam_unix.so") < faillock[1]
    assert asked[faillock[0]][-1] == "preauth" and asked[faillock[1]][-1] == "authfail"
    settings = host.check_output("cat /etc/security/faillock.conf").splitlines()
    assert {"deny = 5", "unlock_time = 900", "even_deny_root"} <= set(settings)


def test_a_weak_password_is_refused(host: Host) -> None:
    """Also to root, who sets it."""
    told = host.run("printf 'nobody:Summer2026\\n' | chpasswd")
    assert told.rc != 0 and "BAD PASSWORD" in told.stdout + told.stderr
    assert host.check_output("getent shadow nobody").split(":")[1].strip("!*") == ""
