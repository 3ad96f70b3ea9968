//! What a Kconfig file says: options in menus.

use std::collections::BTreeMap;
use std::fmt;

use nom_kconfig::attribute::range::RangeBound;
use nom_kconfig::attribute::r#type::Type;
use nom_kconfig::{Attribute, Entry, KconfigFile, KconfigInput, parse_kconfig};

use crate::expression::{Expression, Operand};

/// The place of an option in [`Options::all`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OptionId(pub usize);

/// The place of a choice in [`Options::choices`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ChoiceId(pub usize);

/// What an option takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// y or n.
    Bool,
    /// A number.
    Int,
    /// A number that is written in hexadecimal.
    Hex,
    /// Text.
    Text,
}

/// The value of an option.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Value {
    /// y or n.
    Bool(bool),
    /// A number.
    Int(u64),
    /// A number that is written in hexadecimal.
    Hex(u64),
    /// Text.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(is_set) => f.write_str(if *is_set { "y" } else { "n" }),
            Self::Int(number) => write!(f, "{number}"),
            Self::Hex(number) => write!(f, "{number:#x}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// An option.
#[derive(Clone, Debug)]
pub struct KernelOption {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub kind: Kind,
    /// What a person is asked; `None`: it follows from others.
    pub prompt: Option<String>,
    /// What it does.
    pub help: String,
    /// The choice that it is a member of.
    pub choice: Option<ChoiceId>,
    /// What must hold so that it has a value.
    pub(crate) depends: Vec<Expression>,
    /// What must hold besides so that a person is asked.
    pub(crate) asked_if: Vec<Expression>,
    /// The first that holds is its value when nothing was wished.
    pub(crate) defaults: Vec<(Expression, Option<Expression>)>,
    /// The first that holds are its limits.
    pub(crate) ranges: Vec<(u64, u64, Option<Expression>)>,
}

impl KernelOption {
    /// Its value for a person's words.
    ///
    /// # Errors
    /// What it takes instead.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let number = || match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        match self.kind {
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "y" | "yes" | "on" | "true" | "1" => Ok(Value::Bool(true)),
                "n" | "no" | "off" | "false" | "0" => Ok(Value::Bool(false)),
                _ => Err("it takes y or n".to_owned()),
            },
            Kind::Int => number().map(Value::Int).ok_or_else(|| "it takes a number".to_owned()),
            Kind::Hex => number().map(Value::Hex).ok_or_else(|| "it takes a number, as 0x3f8 or 1016".to_owned()),
            Kind::Text => Ok(Value::Text(text.trim_matches('"').to_owned())),
        }
    }
}

/// Options of which one is chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What a person is asked.
    pub prompt: String,
    /// What it is about.
    pub help: String,
    /// Its members.
    pub members: Vec<OptionId>,
    pub(crate) depends: Vec<Expression>,
    pub(crate) defaults: Vec<(OptionId, Option<Expression>)>,
}

/// A line of a menu.
#[derive(Clone, Debug)]
pub enum Item {
    /// A menu in it.
    Menu(String, Vec<Item>),
    /// An option.
    Option(OptionId),
    /// A choice.
    Choice(ChoiceId),
}

/// All options.
#[derive(Clone, Debug)]
pub struct Options {
    /// What all of it is called.
    pub title: String,
    /// The options, in the order of the file.
    pub all: Vec<KernelOption>,
    /// The choices.
    pub choices: Vec<Choice>,
    /// The menus.
    pub menu: Vec<Item>,
    names: BTreeMap<String, OptionId>,
}

impl Options {
    /// Reads a Kconfig file. Understood are menus, `if`, choices, and options with types, prompts, defaults, ranges,
    /// dependencies and help; what else the language has is refused.
    ///
    /// # Errors
    /// What is not understood, or does not fit together.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file = KconfigFile::new(Default::default(), "Kconfig".into());
        let (_, parsed) = parse_kconfig(KconfigInput::new_extra(text, file))
            .map_err(|error| format!("line {}, column {}: {}", error.line, error.column, error.kind))?;
        let mut options = Self {
            title: "Configuration".to_owned(),
            all: Vec::new(),
            choices: Vec::new(),
            menu: Vec::new(),
            names: BTreeMap::new(),
        };
        options.menu = options.enter_all(&parsed.entries, &[], None)?;
        options.check()?;
        let menu = std::mem::take(&mut options.menu);
        options.menu = options.without_given(menu);
        Ok(options)
    }

    /// The menus without options that a choice gives: the choice stands for them.
    fn without_given(&self, items: Vec<Item>) -> Vec<Item> {
        let is_given = |id: &OptionId| self.get(*id).prompt.is_none() && !self.given(*id).is_empty();
        let rest = items.into_iter().filter(|item| !matches!(item, Item::Option(id) if is_given(id)));
        rest.map(|item| match item {
            Item::Menu(title, inner) => Item::Menu(title, self.without_given(inner)),
            item => item,
        })
        .collect()
    }

    /// The option called `name`.
    pub fn find(&self, name: &str) -> Option<OptionId> {
        self.names.get(name).copied()
    }

    /// An option.
    pub fn get(&self, id: OptionId) -> &KernelOption {
        &self.all[id.0]
    }

    /// A choice.
    pub fn choice(&self, id: ChoiceId) -> &Choice {
        &self.choices[id.0]
    }

    /// All of them.
    pub fn ids(&self) -> impl Iterator<Item = OptionId> + use<> {
        (0..self.all.len()).map(OptionId)
    }

    /// The member of a choice by which the option `id`, which has no prompt, gets `value`: one of its defaults says so.
    pub fn giver(&self, id: OptionId, value: &Value) -> Option<OptionId> {
        let option = self.get(id);
        let constant = |expression: &Expression| match expression {
            Expression::Operand(Operand::Text(text)) => option.parse(text).ok(),
            _ => None,
        };
        let member = |name: &str| self.find(name).filter(|&member| self.get(member).choice.is_some());
        let named = option.defaults.iter().filter_map(|(given, condition)| match condition {
            Some(Expression::Operand(Operand::Name(name))) => Some((constant(given)?, member(name)?)),
            _ => None,
        });
        let named: Vec<(Value, OptionId)> = named.collect();
        if let Some((_, member)) = named.iter().find(|(given, _)| given == value) {
            return Some(*member);
        }
        // The default without a condition is what the members that no other default names come to.
        let (last, _) = option.defaults.iter().find(|(_, condition)| condition.is_none())?;
        let choice = self.get(named.first()?.1).choice?;
        let mut unnamed =
            self.choice(choice).members.iter().filter(|member| named.iter().all(|(_, own)| own != *member));
        unnamed.next().copied().filter(|_| constant(last).as_ref() == Some(value) && unnamed.next().is_none())
    }

    /// The values that the option `id`, which has no prompt, gets by members of a choice.
    pub fn given(&self, id: OptionId) -> Vec<Value> {
        let option = self.get(id);
        let constants = option.defaults.iter().filter_map(|(given, _)| match given {
            Expression::Operand(Operand::Text(text)) => option.parse(text).ok(),
            _ => None,
        });
        constants.filter(|value| self.giver(id, value).is_some()).collect()
    }

    fn enter_all(
        &mut self,
        entries: &[Entry],
        depends: &[Expression],
        choice: Option<ChoiceId>,
    ) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        for entry in entries {
            match entry {
                Entry::MainMenu(menu) => self.title.clone_from(&menu.prompt),
                Entry::Menu(menu) => {
                    let mut depends = depends.to_vec();
                    for condition in &menu.depends_on {
                        depends.push(Expression::of(&condition.expression)?);
                    }
                    items.push(Item::Menu(menu.prompt.clone(), self.enter_all(&menu.entries, &depends, choice)?));
                }
                Entry::If(block) => {
                    let mut depends = depends.to_vec();
                    depends.push(Expression::of(&block.condition)?);
                    items.extend(self.enter_all(&block.entries, &depends, choice)?);
                }
                Entry::Config(config) => {
                    items.push(Item::Option(self.enter(&config.symbol, &config.attributes, depends, choice)?));
                }
                Entry::Choice(found) => {
                    items.push(Item::Choice(self.enter_choice(&found.options, &found.entries, depends)?));
                }
                other => return Err(format!("this is not understood: {other:?}")),
            }
        }
        Ok(items)
    }

    fn enter(
        &mut self,
        name: &str,
        attributes: &[Attribute],
        depends: &[Expression],
        choice: Option<ChoiceId>,
    ) -> Result<OptionId, String> {
        let mut option = KernelOption {
            name: name.to_owned(),
            kind: Kind::Bool,
            prompt: None,
            help: String::new(),
            choice,
            depends: depends.to_vec(),
            asked_if: Vec::new(),
            defaults: Vec::new(),
            ranges: Vec::new(),
        };
        let condition = |parsed: &Option<_>| parsed.as_ref().map(Expression::of).transpose();
        let mut has_type = false;
        for attribute in attributes {
            match attribute {
                Attribute::Type(found) => {
                    has_type = true;
                    let prompt = match &found.r#type {
                        Type::Bool(prompt) => (Kind::Bool, prompt.clone()),
                        Type::Int(prompt) => (Kind::Int, prompt.clone()),
                        Type::Hex(prompt) => (Kind::Hex, prompt.clone()),
                        Type::String(prompt) => (Kind::Text, prompt.clone()),
                        Type::DefBool(value) => {
                            option.defaults.push((Expression::of(value)?, condition(&found.r#if)?));
                            option.kind = Kind::Bool;
                            continue;
                        }
                        other => return Err(format!("{name}: this type is not understood: {other:?}")),
                    };
                    (option.kind, option.prompt) = prompt;
                    option.asked_if.extend(condition(&found.r#if)?);
                }
                Attribute::Prompt(prompt) => {
                    option.prompt = Some(prompt.prompt.clone());
                    option.asked_if.extend(condition(&prompt.r#if)?);
                }
                Attribute::DependsOn(depends) => option.depends.push(Expression::of(&depends.expression)?),
                Attribute::Default(default) => {
                    option.defaults.push((Expression::of(&default.expression)?, condition(&default.r#if)?));
                }
                Attribute::Range(range) => {
                    let [low, high] = [&range.lower_bound, &range.upper_bound].map(bound);
                    option.ranges.push((low?, high?, condition(&range.r#if)?));
                }
                Attribute::Help(help) => option.help = help.split_whitespace().collect::<Vec<_>>().join(" "),
                other => return Err(format!("{name}: this is not understood: {other:?}")),
            }
        }
        if !has_type {
            return Err(format!("{name} has no type"));
        }
        let id = OptionId(self.all.len());
        if self.names.insert(name.to_owned(), id).is_some() {
            return Err(format!("{name} is there twice"));
        }
        self.all.push(option);
        Ok(id)
    }

    fn enter_choice(
        &mut self,
        attributes: &[Attribute],
        entries: &[Entry],
        outer: &[Expression],
    ) -> Result<ChoiceId, String> {
        let id = ChoiceId(self.choices.len());
        let mut choice = Choice {
            prompt: String::new(),
            help: String::new(),
            members: Vec::new(),
            depends: outer.to_vec(),
            defaults: Vec::new(),
        };
        let mut defaults = Vec::new();
        for attribute in attributes {
            match attribute {
                Attribute::Prompt(prompt) => choice.prompt.clone_from(&prompt.prompt),
                Attribute::DependsOn(depends) => choice.depends.push(Expression::of(&depends.expression)?),
                Attribute::Help(help) => choice.help = help.split_whitespace().collect::<Vec<_>>().join(" "),
                Attribute::Default(default) => {
                    let condition = default.r#if.as_ref().map(Expression::of).transpose()?;
                    defaults.push((Expression::of(&default.expression)?, condition));
                }
                other => return Err(format!("choice: this is not understood: {other:?}")),
            }
        }
        let depends = choice.depends.clone();
        self.choices.push(choice);
        for item in self.enter_all(entries, &depends, Some(id))? {
            match item {
                Item::Option(member) if self.get(member).kind == Kind::Bool => self.choices[id.0].members.push(member),
                _ => return Err("a choice has options of type bool only".to_owned()),
            }
        }
        for (default, condition) in defaults {
            let member = match &default {
                Expression::Operand(Operand::Name(name)) => self.find(name),
                _ => None,
            };
            let member = member.filter(|member| self.choices[id.0].members.contains(member));
            let member = member.ok_or_else(|| format!("{default} is no member of its choice"))?;
            self.choices[id.0].defaults.push((member, condition));
        }
        if self.choices[id.0].members.is_empty() {
            return Err("a choice has no members".to_owned());
        }
        Ok(id)
    }

    /// Each name stands for an option, and no option depends on itself.
    fn check(&self) -> Result<(), String> {
        // 0: not looked at, 1: being looked at, 2: sound.
        let mut states = vec![0u8; self.all.len()];
        self.ids().try_for_each(|id| self.check_from(id, &mut states))
    }

    fn check_from(&self, id: OptionId, states: &mut [u8]) -> Result<(), String> {
        let option = self.get(id);
        match states[id.0] {
            0 => states[id.0] = 1,
            1 => return Err(format!("{} depends on itself", option.name)),
            _ => return Ok(()),
        }
        let choice = option.choice.map(|choice| self.choice(choice));
        let of_choice = choice.iter().flat_map(|choice| {
            choice.depends.iter().chain(choice.defaults.iter().filter_map(|(_, condition)| condition.as_ref()))
        });
        let of_defaults = option.defaults.iter().flat_map(|(value, condition)| [Some(value), condition.as_ref()]);
        let of_ranges = option.ranges.iter().map(|(_, _, condition)| condition.as_ref());
        let conditions = option.depends.iter().chain(&option.asked_if).chain(of_choice);
        for expression in conditions.chain(of_defaults.chain(of_ranges).flatten()) {
            for name in expression.names() {
                let other = self.find(name).ok_or_else(|| format!("{}: nothing is called {name}", option.name))?;
                self.check_from(other, states)?;
            }
        }
        states[id.0] = 2;
        Ok(())
    }
}

fn bound(bound: &RangeBound) -> Result<u64, String> {
    match bound {
        RangeBound::Number(number) => u64::try_from(*number).map_err(|_| format!("{number} is less than 0")),
        RangeBound::Hex(text) => {
            let digits = text.trim_start_matches("0x").trim_start_matches("0X");
            u64::from_str_radix(digits, 16).map_err(|_| format!("{text} is no number"))
        }
        RangeBound::Symbol(name) | RangeBound::Variable(name) => Err(format!("a range with {name} is not understood")),
    }
}
