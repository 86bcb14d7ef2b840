//! Fuzzes the tracker's rules by cargo-fuzz, with whichever compiler at hand can instrument code for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo,
    setup::{self, Purpose},
};

/// What is fuzzed, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// Only this target
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

/// Who compiles: instrumenting code takes flags that are unstable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Toolchain {
    /// rustup's nightly, the usual way of the field.
    Nightly,
    /// The one in use, which takes such flags with `RUSTC_BOOTSTRAP`.
    Present,
}

/// Runs the targets one after the other, up to the first that finds something.
pub fn run(options: &Options) -> Result<()> {
    setup::set_up(Purpose::Test)?;
    install()?;
    let toolchain = Toolchain::find();
    let sanitizer = if toolchain.has_address_sanitizer()? { "address" } else { "none" };
    let targets = match &options.target {
        Some(target) => vec![target.clone()],
        None => toolchain.targets()?,
    };
    for target in targets {
        println!("fuzz: {target}: {} s, sanitizer: {sanitizer}", options.seconds);
        let mut fuzz = toolchain.command("cargo");
        fuzz.args(["fuzz", "run", "--sanitizer", sanitizer, &target, "--"])
            .arg(format!("-max_total_time={}", options.seconds))
            .args(["-verbosity=0", "-print_final_stats=1"])
            .current_dir(package());
        cargo::run(&mut fuzz).with_context(|| format!("target {target}"))?;
    }
    Ok(())
}

/// The package that has the targets, the one for which `cargo fuzz` looks in `fuzz/`.
fn package() -> PathBuf {
    cargo::workspace().join("conntrack-core")
}

fn install() -> Result<()> {
    if answer(Command::new("cargo").args(["fuzz", "--version"])).is_ok() {
        return Ok(());
    }
    println!("fuzz: installing cargo-fuzz");
    cargo::cargo(&["install", "--locked", "cargo-fuzz"])
}

impl Toolchain {
    fn find() -> Self {
        if answer(Self::Nightly.command("rustc").arg("--version")).is_ok() {
            Self::Nightly
        } else {
            Self::Present
        }
    }

    /// A command with this toolchain's programs.
    fn command(self, program: &str) -> Command {
        let mut command = match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                // To look for a toolchain must not download it.
                command.args(["run", "nightly", program]).env("RUSTUP_AUTO_INSTALL", "0");
                command
            }
            Self::Present => {
                let mut command = Command::new(program);
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        // What the calling Cargo says of its own would win.
        command.env_remove("RUSTC").env_remove("CARGO");
        command
    }

    /// Whether the run-time library of the sanitizer came with the compiler; Debian's comes without.
    fn has_address_sanitizer(self) -> Result<bool> {
        let libraries = answer(self.command("rustc").args(["--print", "target-libdir"]))?;
        let mut names = fs::read_dir(Path::new(libraries.trim_end()))?.flatten().map(|file| file.file_name());
        Ok(names.any(|name| name.to_string_lossy().ends_with("_rt.asan.a")))
    }

    fn targets(self) -> Result<Vec<String>> {
        let list = answer(self.command("cargo").args(["fuzz", "list"]).current_dir(package()))?;
        Ok(list.lines().map(str::to_owned).collect())
    }
}

/// What a command prints, if it succeeds.
fn answer(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "{} failed ({})", command.get_program().display(), output.status);
    Ok(String::from_utf8(output.stdout)?)
}
