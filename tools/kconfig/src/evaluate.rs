//! What options come to.

use std::collections::BTreeMap;
use std::fmt;

use crate::expression::{Expression, Operand, Relation};
use crate::options::{ChoiceId, Kind, OptionId, Options, Value};

/// What a person wishes. Wishes for options that cannot be chosen at the moment are kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    wishes: BTreeMap<OptionId, Value>,
}

/// Why a wish was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No option has this name; the nearest one that there is.
    Unknown(String, Option<String>),
    /// The option does not take the value, for this reason.
    BadValue(String, String, String),
    /// The option follows from others.
    Fixed(String, String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name, None) => write!(f, "no option is called {name}"),
            Self::Unknown(name, Some(near)) => write!(f, "no option is called {name}; there is {near}"),
            Self::BadValue(name, value, reason) => write!(f, "{name} cannot be {value}: {reason}"),
            Self::Fixed(name, reason) => write!(f, "{name} cannot be chosen: {reason}"),
        }
    }
}

impl Settings {
    /// What is wished of an option.
    pub fn get(&self, id: OptionId) -> Option<&Value> {
        self.wishes.get(&id)
    }

    /// All wishes.
    pub fn iter(&self) -> impl Iterator<Item = (OptionId, &Value)> {
        self.wishes.iter().map(|(&id, value)| (id, value))
    }

    /// Forgets a wish.
    pub fn forget(&mut self, id: OptionId) {
        self.wishes.remove(&id);
    }

    /// Wishes, by name and value as a person writes them. Returns the option that was set, which for a value that a choice
    /// gives is a member of that choice; `None` for a fact of this kernel that is as wished.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub fn set(&mut self, options: &Options, name: &str, text: &str) -> Result<Option<OptionId>, Refusal> {
        let name = name.strip_prefix("CONFIG_").unwrap_or(name);
        let id = options.find(name).ok_or_else(|| Refusal::Unknown(name.to_owned(), nearest(options, name)))?;
        let option = options.get(id);
        let bad = |reason| Refusal::BadValue(name.to_owned(), text.to_owned(), reason);
        let value = option.parse(text).map_err(bad)?;
        if option.prompt.is_some() {
            if let Some(range) = range_text(options, id, &value) {
                return Err(bad(range));
            }
            self.wish(options, id, value);
            return Ok(Some(id));
        }
        if let Some(member) = options.giver(id, &value) {
            self.wish(options, member, Value::Bool(true));
            return Ok(Some(member));
        }
        let given = options.given(id);
        if !given.is_empty() {
            let given: Vec<String> = given.iter().map(Value::to_string).collect();
            return Err(bad(format!("it takes {}", given.join(", "))));
        }
        if options.evaluate(self).value(id) == &value {
            return Ok(None);
        }
        Err(Refusal::Fixed(name.to_owned(), fact(options, id)))
    }

    /// Wishes `value`, which the option takes, of an option that is asked for. Of a choice only the last member counts.
    pub fn wish(&mut self, options: &Options, id: OptionId, value: Value) {
        if let (Some(choice), Value::Bool(is_chosen)) = (options.get(id).choice, &value) {
            if !is_chosen {
                self.wishes.remove(&id);
                return;
            }
            options.choice(choice).members.iter().for_each(|member| drop(self.wishes.remove(member)));
        }
        self.wishes.insert(id, value);
    }
}

/// Why an option that nobody is asked for is as it is.
fn fact(options: &Options, id: OptionId) -> String {
    let option = options.get(id);
    let help = option.help.strip_suffix('.').unwrap_or(&option.help);
    if help.is_empty() { "it follows from others".to_owned() } else { format!("it is a fact of this kernel: {help}") }
}

/// What an option takes if `value` is beyond all of its ranges.
fn range_text(options: &Options, id: OptionId, value: &Value) -> Option<String> {
    let (Value::Int(number) | Value::Hex(number)) = value else { return None };
    let ranges = &options.get(id).ranges;
    if ranges.is_empty() || ranges.iter().any(|(low, high, _)| (low..=high).contains(&number)) {
        return None;
    }
    let ranges: Vec<String> = ranges
        .iter()
        .map(|&(low, high, _)| match options.get(id).kind {
            Kind::Hex => format!("{low:#x} to {high:#x}"),
            _ => format!("{low} to {high}"),
        })
        .collect();
    Some(format!("it takes {}", ranges.join(" or ")))
}

/// The name that differs least, if it differs little.
fn nearest(options: &Options, name: &str) -> Option<String> {
    let name = name.to_ascii_uppercase();
    let distances = options.all.iter().map(|option| (distance(&option.name, &name), &option.name));
    let (distance, nearest) = distances.min()?;
    (distance <= 2 + name.len() / 4).then(|| nearest.clone())
}

/// Letters to be put in, left out or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let replaced = diagonal + usize::from(letter != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// What each option comes to.
#[derive(Clone, Debug)]
pub struct Configuration<'o> {
    options: &'o Options,
    values: Vec<Value>,
    wishes: Settings,
}

impl Options {
    /// What each option comes to with these wishes.
    pub fn evaluate(&self, settings: &Settings) -> Configuration<'_> {
        let mut evaluation = Evaluation { options: self, settings, values: vec![None; self.all.len()] };
        let values = self.ids().map(|id| evaluation.value(id)).collect();
        Configuration { options: self, values, wishes: settings.clone() }
    }
}

/// An evaluation on its way. Options do not depend on themselves, so it ends.
struct Evaluation<'e> {
    options: &'e Options,
    settings: &'e Settings,
    values: Vec<Option<Value>>,
}

impl Evaluation<'_> {
    fn value(&mut self, id: OptionId) -> Value {
        if let Some(value) = &self.values[id.0] {
            return value.clone();
        }
        let value = match self.options.get(id).choice {
            Some(choice) => Value::Bool(self.chosen(choice) == Some(id)),
            None => self.own_value(id),
        };
        self.values[id.0] = Some(value.clone());
        value
    }

    fn own_value(&mut self, id: OptionId) -> Value {
        let options = self.options;
        let option = options.get(id);
        let zero = match option.kind {
            Kind::Bool => Value::Bool(false),
            Kind::Int => Value::Int(0),
            Kind::Hex => Value::Hex(0),
            Kind::Text => Value::Text(String::new()),
        };
        if !self.hold(&option.depends) {
            return zero;
        }
        if let Some(wish) = self.settings.get(id) {
            if option.prompt.is_some() && self.hold(&option.asked_if) && self.is_in_range(id, wish) {
                return wish.clone();
            }
        }
        for (value, condition) in &option.defaults {
            if condition.as_ref().is_none_or(|condition| self.holds(condition)) {
                return match value {
                    Expression::Operand(Operand::Text(text)) => option.parse(text).unwrap_or(zero),
                    Expression::Operand(Operand::Name(name)) if option.kind != Kind::Bool => {
                        options.find(name).map_or(zero, |other| self.value(other))
                    }
                    condition => Value::Bool(self.holds(condition)),
                };
            }
        }
        zero
    }

    fn is_in_range(&mut self, id: OptionId, value: &Value) -> bool {
        let (Value::Int(number) | Value::Hex(number)) = value else { return true };
        let options = self.options;
        for (low, high, condition) in &options.get(id).ranges {
            if condition.as_ref().is_none_or(|condition| self.holds(condition)) {
                return (low..=high).contains(&number);
            }
        }
        true
    }

    /// The member of a choice that counts; `None` if there is nothing to choose.
    fn chosen(&mut self, id: ChoiceId) -> Option<OptionId> {
        let options = self.options;
        let choice = options.choice(id);
        if !self.hold(&choice.depends) {
            return None;
        }
        let wished =
            choice.members.iter().copied().find(|&member| self.settings.get(member) == Some(&Value::Bool(true)));
        if let Some(member) = wished.filter(|&member| self.is_asked(member)) {
            return Some(member);
        }
        for (member, condition) in &choice.defaults {
            if condition.as_ref().is_none_or(|condition| self.holds(condition)) && self.is_asked(*member) {
                return Some(*member);
            }
        }
        choice.members.iter().copied().find(|&member| self.is_asked(member))
    }

    fn is_asked(&mut self, id: OptionId) -> bool {
        let options = self.options;
        let option = options.get(id);
        option.prompt.is_some() && self.hold(&option.depends) && self.hold(&option.asked_if)
    }

    fn hold(&mut self, conditions: &[Expression]) -> bool {
        conditions.iter().all(|condition| self.holds(condition))
    }

    fn holds(&mut self, condition: &Expression) -> bool {
        let options = self.options;
        holds(condition, &mut |name| options.find(name).map(|id| self.value(id)))
    }
}

/// Whether a condition holds where `value` tells values of options.
fn holds(condition: &Expression, value: &mut dyn FnMut(&str) -> Option<Value>) -> bool {
    let mut text = |operand: &Operand| match operand {
        Operand::Name(name) => value(name).map_or_else(|| name.clone(), |value| value.to_string()),
        Operand::Text(text) => text.clone(),
    };
    match condition {
        Expression::Operand(operand) => text(operand) == "y",
        Expression::Compare(left, relation, right) => {
            let (left, right) = (text(left), text(right));
            let order = match (number(&left), number(&right)) {
                (Some(left), Some(right)) => left.cmp(&right),
                _ => left.cmp(&right),
            };
            match relation {
                Relation::Equal => order.is_eq(),
                Relation::NotEqual => order.is_ne(),
                Relation::Less => order.is_lt(),
                Relation::LessOrEqual => order.is_le(),
                Relation::Greater => order.is_gt(),
                Relation::GreaterOrEqual => order.is_ge(),
            }
        }
        Expression::Not(inner) => !holds(inner, value),
        Expression::All(parts) => parts.iter().all(|part| holds(part, value)),
        Expression::Any(parts) => parts.iter().any(|part| holds(part, value)),
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl Configuration<'_> {
    /// What an option comes to.
    pub fn value(&self, id: OptionId) -> &Value {
        &self.values[id.0]
    }

    /// The chosen member of a choice.
    pub fn chosen(&self, id: ChoiceId) -> Option<OptionId> {
        let members = &self.options.choice(id).members;
        members.iter().copied().find(|member| self.value(*member) == &Value::Bool(true))
    }

    /// Why a person cannot choose an option now, an entry for each reason; empty if that is possible.
    pub fn obstacles(&self, id: OptionId) -> Vec<String> {
        let option = self.options.get(id);
        if option.prompt.is_none() {
            return match self.options.given(id).is_empty() {
                true => vec![fact(self.options, id)],
                false => vec!["it follows from a choice".to_owned()],
            };
        }
        self.reasons(option.depends.iter().chain(&option.asked_if))
    }

    /// The same of a choice.
    pub fn obstacles_of_choice(&self, id: ChoiceId) -> Vec<String> {
        self.reasons(self.options.choice(id).depends.iter())
    }

    /// What an option needs, in words.
    pub fn needs(&self, id: OptionId) -> Vec<String> {
        let option = self.options.get(id);
        let mut needs: Vec<String> = option.depends.iter().chain(&option.asked_if).map(ToString::to_string).collect();
        needs.dedup();
        needs
    }

    fn reasons<'e>(&self, conditions: impl Iterator<Item = &'e Expression>) -> Vec<String> {
        let mut reasons = Vec::new();
        conditions.for_each(|condition| self.explain(condition, &mut reasons));
        let mut seen = Vec::new();
        reasons.retain(|reason| {
            !seen.contains(reason) && {
                seen.push(reason.clone());
                true
            }
        });
        reasons
    }

    /// Adds why `condition` does not hold, and behind it what is in the way of that in turn.
    fn explain(&self, condition: &Expression, reasons: &mut Vec<String>) {
        if self.holds(condition) {
            return;
        }
        match condition {
            Expression::All(parts) => parts.iter().for_each(|part| self.explain(part, reasons)),
            Expression::Operand(Operand::Name(name)) => {
                reasons.push(format!("it needs {name}=y"));
                if let Some(id) = self.options.find(name) {
                    let option = self.options.get(id);
                    let mut deeper = Vec::new();
                    option.depends.iter().for_each(|condition| self.explain(condition, &mut deeper));
                    reasons.extend(deeper.into_iter().map(|reason| match reason.strip_prefix("it needs ") {
                        Some(need) => format!("{name} needs {need}"),
                        None => reason,
                    }));
                }
            }
            Expression::Not(inner) => match &**inner {
                Expression::Operand(Operand::Name(name)) => reasons.push(format!("it needs {name}=n")),
                inner => reasons.push(format!("it needs that this is not so: {inner}")),
            },
            other => reasons.push(format!("it needs {other}")),
        }
    }

    fn holds(&self, condition: &Expression) -> bool {
        holds(condition, &mut |name| self.options.find(name).map(|id| self.value(id).clone()))
    }

    /// Wishes that do not count now, with the reason.
    pub fn idle_wishes(&self) -> Vec<(OptionId, Value, String)> {
        let idle = self.wishes.iter().filter(|&(id, wish)| self.value(id) != wish);
        idle.map(|(id, wish)| {
            let mut obstacles = self.obstacles(id);
            if obstacles.is_empty() {
                obstacles.push("it is out of its range".to_owned());
            }
            (id, wish.clone(), obstacles.join(", "))
        })
        .collect()
    }

    /// Each option with its value, a line each: what the build of the kernel reads.
    pub fn resolved(&self) -> String {
        let line = |id: OptionId| {
            let (option, value) = (self.options.get(id), self.value(id));
            match option.kind {
                Kind::Text => format!("{}=\"{value}\"\n", option.name),
                _ => format!("{}={value}\n", option.name),
            }
        };
        self.options.ids().map(line).collect()
    }
}
