//! A scapy session that stays open in a namespace, as the tutorial has it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{netns::Netns, process::Background, python::PYTHON};

/// Runs each line it reads and answers with one of its own.
const SESSION: &str = r"
import sys, logging
from scapy.all import *
conf.verb = 0
conf.logLevel = logging.ERROR
print('ready', flush=True)
for line in sys.stdin:
    try:
        exec(line)
        print('ok', flush=True)
    except Exception as error:
        print(repr(error), flush=True)
";

/// A running session; it ends on drop.
#[derive(Debug)]
pub struct Scapy {
    statements: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Background,
}

impl Scapy {
    /// Starts a session; the first line tells that its modules are loaded.
    pub fn start(netns: &Netns) -> Result<Self> {
        let mut process = Background::spawn(
            netns.command(PYTHON).args(["-c", SESSION]).stdin(Stdio::piped()).stdout(Stdio::piped()),
        )?;
        let statements = process.child().stdin.take().context("scapy without a standard input")?;
        let answers = process.child().stdout.take().context("scapy without a standard output")?;
        let mut scapy = Self { statements, answers: BufReader::new(answers), _process: process };
        scapy.expect("ready")?;
        Ok(scapy)
    }

    /// Runs one statement, such as a `sendp(..)`, and waits until it is done.
    pub fn run(&mut self, statement: &str) -> Result<()> {
        writeln!(self.statements, "{statement}")?;
        self.expect("ok")
    }

    fn expect(&mut self, wanted: &str) -> Result<()> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.trim_end() == wanted { Ok(()) } else { bail!("scapy: {}", answer.trim_end()) }
    }
}
