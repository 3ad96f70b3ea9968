//! A look into a running machine: the emulator's monitor, by its protocol for programs (QMP).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::screenshot::Screenshot;

/// How long the emulator may take to open its monitor, and to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the monitor of a machine that was started with [`crate::qemu::Machine::monitor`].
pub struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects, as soon as the emulator is there.
    pub fn connect(socket: &Path) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > end => return Err(error).context("the emulator opens no monitor"),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.read()?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// All processors stand still until [`Self::go_on`].
    pub fn stop(&mut self) -> Result<()> {
        self.execute("stop", &json!({})).map(drop)
    }

    /// They go on.
    pub fn go_on(&mut self) -> Result<()> {
        self.execute("cont", &json!({})).map(drop)
    }

    /// Writes the machine's memory and the registers of its processors into a file.
    pub fn dump(&mut self, file: &Path) -> Result<()> {
        let arguments = json!({ "paging": false, "protocol": format!("file:{}", file.display()) });
        self.execute("dump-guest-memory", &arguments).map(drop)
    }

    /// Ends the machine.
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit", &json!({})).map(drop)
    }

    /// What the monitor says to a person who types `line` about processor `cpu`.
    pub fn ask(&mut self, cpu: u32, line: &str) -> Result<String> {
        let arguments = json!({ "command-line": line, "cpu-index": cpu });
        let answer = self.execute("human-monitor-command", &arguments)?;
        answer.as_str().map(str::to_owned).with_context(|| format!("no answer to `{line}`: {answer}"))
    }

    /// What the screen shows now.
    pub fn screenshot(&mut self) -> Result<Screenshot> {
        let file = tempfile::NamedTempFile::new()?;
        self.execute("screendump", &json!({ "filename": file.path() }))?;
        Screenshot::parse(&std::fs::read(file.path())?)
    }

    /// Presses keys of the keyboard at once, by QEMU's names for them with a `-` between them, and releases them.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        let keys: Vec<Value> = keys.split('-').map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.execute("send-key", &json!({ "keys": keys })).map(drop)
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let words = json!({ "execute": command, "arguments": arguments });
        // In one piece: the emulator that was told to quit does not wait for the end of the line.
        self.stream.get_mut().write_all(format!("{words}\n").as_bytes())?;
        loop {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("the monitor refuses `{command}`: {error}");
            }
            // Anything else is an event.
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        let bytes = self.stream.read_line(&mut line).context("the monitor does not answer")?;
        if bytes == 0 {
            bail!("the emulator has ended");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
