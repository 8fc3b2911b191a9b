//! One server's clock is off by days or years: every write succeeds, and everyone says whose clock it is.

use std::path::Path;

use chord::model::Level;

use crate::process::{Cluster, Shape, wait_until};

/// Where Debian has them. The one for programs with threads.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// Whose clock is off.
const BAD: usize = 3;

#[test]
fn a_clock_that_is_days_or_years_off_stops_nothing_and_is_named_by_everyone() {
    let Some(library) = LIBRARIES.into_iter().find(|library| Path::new(library).exists()) else {
        eprintln!("SKIPPED: libfaketime is not there; install Debian's package libfaketime");
        return;
    };
    let mut cluster = Cluster::shaped(Shape { http: true, ..Shape::DEMO });
    for (off, told) in [("+2d", "2 days ahead of"), ("-50y", "50 years behind")] {
        cluster.terminate(BAD);
        let environment = [
            ("LD_PRELOAD", library),
            ("FAKETIME", off),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        cluster.set_environment(BAD, &environment);
        cluster.restart(BAD);
        cluster.wait_alive(0, &[0, 1, 2, 3]);
        let others = format!("server {BAD}'s clock is {told} the others");
        let own = format!("this server's clock is {told} the others");
        for server in 0..4 {
            let sentence = if server == BAD { &own } else { &others };
            cluster.wait_for(server, &format!("says '{sentence}'"), |status| {
                status.clock.as_ref() == Some(sentence)
            });
        }
        for server in 0..4 {
            for key in ["010", "070", "130", "200"] {
                let value = format!("{off} through {server}");
                cluster.put(server, key, &value, Level::Quorum).unwrap();
                for reader in 0..4 {
                    assert_eq!(
                        cluster.get(reader, key, Level::Quorum).unwrap(),
                        Some(value.clone())
                    );
                }
            }
        }
        for server in 0..4 {
            let sentence = if server == BAD { &own } else { &others };
            let lines = cluster.log(server).matches(sentence.as_str()).count();
            assert_eq!(lines, 1, "once: {}", cluster.log(server));
        }
        let text = String::from_utf8(cluster.inspector(&["--summary"]).stdout).unwrap();
        assert!(text.contains(&others) && text.contains(&own), "{text}");
        let json = String::from_utf8(cluster.inspector(&["--summary", "--json"]).stdout).unwrap();
        assert!(json.contains(&others) && json.contains("clock_offset_ms"), "{json}");
    }
    cluster.terminate(BAD);
    cluster.set_environment(BAD, &[]);
    cluster.restart(BAD);
    wait_until("all clocks are right", || match (0..4).find_map(|of| cluster.status(of).clock) {
        None => Ok(()),
        Some(clock) => Err(clock),
    });
    assert!(cluster.log(0).contains(&format!("server {BAD}'s clock is right again")));
}
