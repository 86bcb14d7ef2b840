//! Plays the conntrack tutorial on the switch, and tells of each thing whether it is what the tutorial says.

use anyhow::Result;
use tests::{
    dump,
    lab::Lab,
    python,
    tutorial::{self, Check, DUMPED_FLOWS, FLOWS, PLAIN_FLOWS, Player, SETUP, STEPS, Side, Step},
};

use crate::{
    cargo,
    setup::{self, Purpose},
};

/// Runs the tutorial in a lab of its own; true when all went as the tutorial says.
///
/// The lab goes with this process, so that Ctrl-C leaves nothing behind either.
pub fn run() -> Result<bool> {
    setup::set_up(Purpose::Demo)?;
    let tools = cargo::build_release()?;
    let lab = Lab::with_tools(&tools)?;
    let mut demo = Demo { lab: &lab, wrong: 0 };

    demo.title("The switch");
    println!("$ switchd");
    let switch = lab.switchd(&[])?;
    for line in SETUP {
        demo.command(line)?;
    }
    let mut player = if python::has("scapy") { Player::with_scapy(&lab)? } else { Player::new(&lab)? };
    demo.plain_forwarding(&mut player)?;
    demo.connection(&mut player)?;
    demo.counters()?;
    switch.stop()?;

    match demo.wrong {
        0 => println!("\nAll of it is as the tutorial says."),
        n => println!("\n{n} of it not as the tutorial says (marked ✗)."),
    }
    Ok(demo.wrong == 0)
}

struct Demo<'a> {
    lab: &'a Lab,
    wrong: usize,
}

impl Demo<'_> {
    fn title(&self, text: &str) {
        println!("\n== {text}");
    }

    fn check(&mut self, check: &Check) {
        println!("   {check}");
        self.wrong += usize::from(!check.ok);
    }

    /// A command that must succeed and say nothing.
    fn command(&mut self, line: &str) -> Result<()> {
        println!("$ {line}");
        let output = tutorial::run(self.lab, line)?;
        self.answered(&output)
    }

    fn add_flow(&mut self, flow: &str) -> Result<()> {
        println!("$ ovs-ofctl add-flow br0 \"{flow}\"");
        let output = self.lab.ovs("ovs-ofctl", &["add-flow", "br0", flow])?;
        self.answered(&output)
    }

    fn answered(&mut self, output: &tests::process::Output) -> Result<()> {
        print!("{}{}", output.stdout, output.stderr);
        if output.code != 0 {
            self.check(&Check::new("exit code", output.code.to_string(), "0"));
        }
        Ok(())
    }

    fn send(&self, step: &Step) {
        println!("\n{} >>> {}    # {}", step.sender.netns(), step.scapy(), step.what);
    }

    fn plain_forwarding(&mut self, player: &mut Player<'_>) -> Result<()> {
        self.title("Plain forwarding");
        for flow in PLAIN_FLOWS {
            self.add_flow(flow)?;
        }
        for side in [Side::Left, Side::Right] {
            let Some(step) = STEPS.iter().find(|step| step.sender == side) else { continue };
            self.send(step);
            let [_, arrivals, ..] = player.play(step)?.compare(&step.expected());
            self.check(&arrivals);
        }
        Ok(())
    }

    fn connection(&mut self, player: &mut Player<'_>) -> Result<()> {
        self.title("A TCP connection, tracked");
        self.command("ovs-ofctl del-flows br0")?;
        let mut added = 0;
        for step in STEPS {
            // The tutorial adds a flow when a segment needs it.
            let needed = step.hits.into_iter().max().unwrap_or_default();
            for (number, flow) in FLOWS.iter().enumerate().take(needed).skip(added) {
                println!("\n(flow #{})", number + 1);
                self.add_flow(flow)?;
            }
            added = added.max(needed);
            self.send(step);
            let seen = player.play(step)?;
            let [hits, arrivals, connection, timer] = seen.compare(&step.expected());
            self.check(&hits);
            self.check(&arrivals);
            println!("$ ovs-appctl dpctl/dump-conntrack | grep \"{}\"", Side::Left.address().ip());
            self.check(&connection);
            self.check(&timer);
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<()> {
        self.title("The flows and what has hit them");
        println!("$ ovs-ofctl dump-flows br0");
        let text = self.lab.ovs("ovs-ofctl", &["dump-flows", "br0"])?.ok()?;
        print!("{text}");
        let flows = dump::flows(&text);
        for ((number, rule), (packets, bytes)) in (1..).zip(DUMPED_FLOWS).zip(tutorial::totals()?) {
            let seen = flows.iter().find(|flow| flow.rule == rule).map_or_else(
                || "not there".into(),
                |flow| format!("{} packets, {} bytes", flow.packets, flow.bytes),
            );
            let expected = format!("{packets} packets, {bytes} bytes");
            self.check(&Check::new(&format!("flow #{number}"), seen, expected));
        }
        Ok(())
    }
}
