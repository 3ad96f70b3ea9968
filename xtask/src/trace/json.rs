//! The form of the trace file: events as JSON, one a line, as ui.perfetto.dev and chrome://tracing both read them (Trace Event
//! Format). Times in it are microseconds since the first event.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

/// Arguments of an event.
pub type Args = Map<String, Value>;

/// A row of the picture: a thread of a process, in the words of the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Track {
    /// The group that it is in.
    pub pid: u64,
    /// The row.
    pub tid: u64,
}

/// An event of the format; what is `None` or empty is left out.
#[derive(Serialize)]
struct Line<'a> {
    ph: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'a str>,
    pid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    args: Args,
}

impl<'a> Line<'a> {
    fn new(ph: &'a str, name: &'a str, track: Track) -> Self {
        let (pid, tid) = (track.pid, Some(track.tid));
        Self { ph, name, cat: None, pid, tid, ts: None, dur: None, id: None, bp: None, s: None, args: Map::new() }
    }
}

/// Writes a trace file from its beginning to its end. Events come in the order of time.
pub struct Writer<W: Write> {
    out: W,
    is_first: bool,
    /// The counter at the first event, and what it counts in a millisecond.
    clock: Option<u64>,
    khz: u64,
    flows: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file. `khz`: what the time-stamp counter counts in a millisecond, at least 1.
    pub fn new(mut out: W, khz: u64) -> io::Result<Self> {
        // Chrome's viewer takes times that are to be shown in nanoseconds for coarse ones, and warns.
        out.write_all(br#"{"displayTimeUnit":"ms","traceEvents":["#)?;
        Ok(Self { out, is_first: true, clock: None, khz, flows: 0 })
    }

    /// What the counter counts in a nanosecond, the unit of times in the file; at least 1.
    pub fn ticks_of_ns(&self) -> u64 {
        self.khz.div_ceil(1_000_000)
    }

    /// Ends it. `about` is shown as what is known of the whole.
    pub fn finish(mut self, about: &Args) -> io::Result<W> {
        self.out.write_all(b"\n],\"metadata\":")?;
        serde_json::to_writer(&mut self.out, about)?;
        self.out.write_all(b"}\n")?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write(&mut self, line: &Line<'_>) -> io::Result<()> {
        self.out.write_all(if self.is_first { b"\n" } else { b",\n" })?;
        self.is_first = false;
        Ok(serde_json::to_writer(&mut self.out, line)?)
    }

    /// Microseconds with three digits behind the point.
    fn time(&mut self, tsc: u64) -> Option<f64> {
        let since = tsc.saturating_sub(*self.clock.get_or_insert(tsc));
        let ns = u128::from(since) * 1_000_000 / u128::from(self.khz);
        Some(ns as f64 / 1000.0)
    }

    fn tell(&mut self, what: &str, track: Track, is_row: bool, key: &str, value: Value) -> io::Result<()> {
        let args = Map::from_iter([(key.to_owned(), value)]);
        let tid = is_row.then_some(track.tid);
        self.write(&Line { tid, args, ..Line::new("M", what, track) })
    }

    /// Gives a group its name and its place among the others.
    pub fn name_group(&mut self, pid: u64, name: &str, place: u64) -> io::Result<()> {
        let track = Track { pid, tid: 0 };
        self.tell("process_name", track, false, "name", name.into())?;
        self.tell("process_sort_index", track, false, "sort_index", place.into())
    }

    /// Gives a row its name and its place in its group.
    pub fn name_row(&mut self, track: Track, name: &str, place: u64) -> io::Result<()> {
        self.tell("thread_name", track, true, "name", name.into())?;
        self.tell("thread_sort_index", track, true, "sort_index", place.into())
    }

    /// Begins a slice, within those that have begun and not ended in this row.
    pub fn begin(&mut self, track: Track, tsc: u64, cat: &str, name: &str, args: Args) -> io::Result<()> {
        let ts = self.time(tsc);
        self.write(&Line { cat: Some(cat), ts, args, ..Line::new("B", name, track) })
    }

    /// Ends the slice that began last; the arguments are added to it.
    pub fn end(&mut self, track: Track, tsc: u64, name: &str, args: Args) -> io::Result<()> {
        let ts = self.time(tsc);
        self.write(&Line { ts, args, ..Line::new("E", name, track) })
    }

    /// Something that takes no time.
    pub fn instant(&mut self, track: Track, tsc: u64, cat: &str, name: &str, args: Args) -> io::Result<()> {
        let ts = self.time(tsc);
        self.write(&Line { cat: Some(cat), ts, s: Some("t"), args, ..Line::new("i", name, track) })
    }

    /// Something that takes no time in one row and goes on in another one: an arrow between a slice without length in each.
    pub fn arrow(&mut self, tsc: u64, cat: &str, from: (Track, &str, Args), to: (Track, &str, Args)) -> io::Result<()> {
        let (ts, id) = (self.time(tsc), Some(self.flows));
        self.flows += 1;
        for ((track, name, args), ph, bp) in [(from, "s", None), (to, "f", Some("e"))] {
            let slice = Line { cat: Some(cat), ts, dur: Some(0.0), args, ..Line::new("X", name, track) };
            self.write(&slice)?;
            self.write(&Line { cat: Some(cat), ts, id, bp, ..Line::new(ph, cat, track) })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{Track, Writer};

    #[test]
    fn a_file_is_json_with_an_event_in_each_line() {
        let (a, b) = (Track { pid: 7, tid: 1 }, Track { pid: 7, tid: 2 });
        let mut writer = Writer::new(Vec::new(), 3_000_000).expect("memory can be written");
        let args = || Map::from_iter([("x".to_owned(), json!("y"))]);
        let mut write = || {
            writer.name_group(7, "space", 3)?;
            writer.name_row(a, "thread \"a\"", 1)?;
            writer.begin(a, 1000, "call", "Ipc", args())?;
            writer.arrow(1003, "ipc", (a, "to b", args()), (b, "from a", Map::new()))?;
            writer.instant(b, 1004, "fault", "PAGEFAULT", Map::new())?;
            writer.end(a, 4_001_000, "Ipc", args())
        };
        write().expect("memory can be written");
        let bytes = writer.finish(&args()).expect("memory can be written");
        let text = String::from_utf8(bytes).expect("JSON is UTF-8");
        let whole: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!((&whole["displayTimeUnit"], &whole["metadata"]["x"]), (&json!("ms"), &json!("y")));
        let expected = json!([
            {"ph":"M","name":"process_name","pid":7,"args":{"name":"space"}},
            {"ph":"M","name":"process_sort_index","pid":7,"args":{"sort_index":3}},
            {"ph":"M","name":"thread_name","pid":7,"tid":1,"args":{"name":"thread \"a\""}},
            {"ph":"M","name":"thread_sort_index","pid":7,"tid":1,"args":{"sort_index":1}},
            {"ph":"B","name":"Ipc","cat":"call","pid":7,"tid":1,"ts":0.0,"args":{"x":"y"}},
            {"ph":"X","name":"to b","cat":"ipc","pid":7,"tid":1,"ts":0.001,"dur":0.0,"args":{"x":"y"}},
            {"ph":"s","name":"ipc","cat":"ipc","pid":7,"tid":1,"ts":0.001,"id":0},
            {"ph":"X","name":"from a","cat":"ipc","pid":7,"tid":2,"ts":0.001,"dur":0.0},
            {"ph":"f","name":"ipc","cat":"ipc","pid":7,"tid":2,"ts":0.001,"id":0,"bp":"e"},
            {"ph":"i","name":"PAGEFAULT","cat":"fault","pid":7,"tid":2,"ts":0.001,"s":"t"},
            {"ph":"E","name":"Ipc","pid":7,"tid":1,"ts":1333.333,"args":{"x":"y"}},
        ]);
        assert_eq!(whole["traceEvents"], expected);
        assert_eq!(text.lines().count(), 13);
    }
}
