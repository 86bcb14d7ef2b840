//! Peers that mean no good.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::fake_switch::{FakeSwitch, message};

fn serves(switch: &FakeSwitch) -> bool {
    switch.client().ask(&message(2, 5, b"abc")) == message(3, 5, b"abc")
}

#[test]
fn a_peer_that_does_not_read_holds_up_nobody_else() {
    let switch = FakeSwitch::start();
    let mut greedy = switch.client();
    greedy.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let echo = message(2, 5, &[7; 60_000]);
    let mut sent = 0;
    while greedy.stream.write_all(&echo).is_ok() {
        sent += echo.len();
        assert!(sent < 64 << 20, "the server takes in what it cannot answer");
    }
    let start = Instant::now();
    assert!(serves(&switch));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn connections_are_limited_and_come_free() {
    let switch = FakeSwitch::start();
    let mut held: Vec<_> = (0..128).map(|_| switch.client()).collect();
    let mut refused = switch.connect();
    assert!(refused.is_closed());
    assert_eq!(held[127].ask(&message(2, 5, &[])), message(3, 5, &[]));
    held.truncate(1);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut next = switch.connect();
        if next.stream.write_all(&message(0, 1, &[])).is_ok()
            && std::io::Read::read(&mut next.stream, &mut [0; 8]).is_ok_and(|n| n == 8)
        {
            break;
        }
        assert!(Instant::now() < deadline, "none came free");
    }
}

#[test]
fn garbage_ends_the_connection_only() {
    let switch = FakeSwitch::start();
    let mut short = switch.client();
    short.send(&[1, 5, 0, 4, 0, 0, 0, 1]);
    assert!(short.is_closed(), "a length below the header's own");
    let mut http = switch.connect();
    http.send(b"GET / HTTP/1.1\r\nHost: switch\r\n\r\n");
    http.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(http.is_closed());
    let mut cut = switch.client();
    cut.send(&message(14, 5, &[0; 64])[..30]);
    drop(cut);
    assert!(serves(&switch));
}

#[test]
fn connections_end_with_their_bridge() {
    let switch = FakeSwitch::start();
    let mut client = switch.client();
    switch.delete_bridge();
    client.send(&message(16, 5, &[0, 3, 0, 0]));
    assert!(client.is_closed());
}

#[test]
fn a_stopped_server_leaves_nothing() {
    let mut switch = FakeSwitch::start();
    let mut client = switch.client();
    switch.stop_server();
    assert!(client.is_closed());
    assert!(!switch.rundir.join("br0.mgmt").exists());
}
