//! Conditions of the Kconfig language.

use std::fmt;

use nom_kconfig::attribute::expression::{AndExpression, Atom, CompareOperand, CompareOperator, OrExpression, Term};
use nom_kconfig::symbol::{ConstantSymbol, Symbol};

/// What a condition compares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operand {
    /// An option.
    Name(String),
    /// A value as it is written.
    Text(String),
}

/// How two values are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A condition, or the expression of a default value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expression {
    Operand(Operand),
    Compare(Operand, Relation, Operand),
    Not(Box<Expression>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Expression {
    /// The names of options in it.
    pub fn names(&self) -> Vec<&str> {
        fn name(operand: &Operand) -> Option<&str> {
            match operand {
                Operand::Name(name) => Some(name),
                Operand::Text(_) => None,
            }
        }
        match self {
            Self::Operand(operand) => name(operand).into_iter().collect(),
            Self::Compare(left, _, right) => name(left).into_iter().chain(name(right)).collect(),
            Self::Not(inner) => inner.names(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::names).collect(),
        }
    }

    /// From the parser's form.
    ///
    /// # Errors
    /// What is not understood.
    pub fn of(parsed: &OrExpression) -> Result<Self, String> {
        match parsed {
            OrExpression::Term(part) => Self::of_and(part),
            OrExpression::Expression(parts) => {
                Ok(Self::Any(parts.iter().map(Self::of_and).collect::<Result<_, String>>()?))
            }
        }
    }

    fn of_and(parsed: &AndExpression) -> Result<Self, String> {
        match parsed {
            AndExpression::Term(part) => Self::of_term(part),
            AndExpression::Expression(parts) => {
                Ok(Self::All(parts.iter().map(Self::of_term).collect::<Result<_, String>>()?))
            }
        }
    }

    fn of_term(parsed: &Term) -> Result<Self, String> {
        match parsed {
            Term::Not(atom) => Ok(Self::Not(Box::new(Self::of_atom(atom)?))),
            Term::Atom(atom) => Self::of_atom(atom),
        }
    }

    fn of_atom(parsed: &Atom) -> Result<Self, String> {
        match parsed {
            Atom::Symbol(symbol) => Ok(Self::Operand(operand(symbol))),
            Atom::Parenthesis(inner) => Self::of(inner),
            Atom::Compare(compare) => {
                let side = |side: &CompareOperand| match side {
                    CompareOperand::Symbol(symbol) => Ok(operand(symbol)),
                    CompareOperand::Macro(_) => Err("macros are not understood".to_owned()),
                };
                let relation = match compare.operator {
                    CompareOperator::Equal => Relation::Equal,
                    CompareOperator::NotEqual => Relation::NotEqual,
                    CompareOperator::LowerThan => Relation::Less,
                    CompareOperator::LowerOrEqual => Relation::LessOrEqual,
                    CompareOperator::GreaterThan => Relation::Greater,
                    CompareOperator::GreaterOrEqual => Relation::GreaterOrEqual,
                };
                Ok(Self::Compare(side(&compare.left)?, relation, side(&compare.right)?))
            }
            Atom::Macro(_) => Err("macros are not understood".to_owned()),
        }
    }
}

fn operand(symbol: &Symbol) -> Operand {
    match symbol {
        Symbol::NonConstant(name) => Operand::Name(name.clone()),
        Symbol::Constant(constant) => Operand::Text(text(constant)),
    }
}

fn text(constant: &ConstantSymbol) -> String {
    match constant {
        ConstantSymbol::Integer(number) => number.to_string(),
        ConstantSymbol::Hex(text) | ConstantSymbol::String(text) => text.clone(),
        ConstantSymbol::Boolean(is_set) => if *is_set { "y" } else { "n" }.to_owned(),
        ConstantSymbol::Tristate(tristate) => format!("{tristate:?}").to_lowercase(),
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Self], word: &str| {
            let parts: Vec<String> = parts.iter().map(|part| part.bracketed()).collect();
            f.write_str(&parts.join(word))
        };
        match self {
            Self::Operand(operand) => operand.fmt(f),
            Self::Compare(left, relation, right) => write!(f, "{left}{relation}{right}"),
            Self::Not(inner) => write!(f, "no {}", inner.bracketed()),
            Self::All(parts) => list(f, parts, " and "),
            Self::Any(parts) => list(f, parts, " or "),
        }
    }
}

impl Expression {
    fn bracketed(&self) -> String {
        match self {
            Self::All(_) | Self::Any(_) => format!("({self})"),
            _ => self.to_string(),
        }
    }
}
