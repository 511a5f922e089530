//! Statements: what an ordinary event does to a field.
//!
//! ```text
//! statement := field [ '[' expr ']' ] what [ 'when' expr ]
//! what      := '+=' expr | '-=' expr | '=' expr | 'offer' expr | 'add' expr | 'remove' expr
//!            | 'enable' | 'disable' | 'clear' | 'remove-key'
//! expr      := and { 'or' and }          and := not { 'and' not }       not := 'not' not | compare
//! compare   := sum [ ( '==' | '!=' | '<' | '<=' | '>' | '>=' ) sum ]
//! sum       := term { ( '+' | '-' ) term }
//! term      := path | '@stream' | '@type' | '@region' | '@time' | number | "text" | 'true' | 'false'
//!            | 'null' | 'exists' path | '(' expr ')' | ( 'min' | 'max' ) '(' expr ',' expr ')' | field
//! path      := '$' { '.' name | '[' number ']' | '["name"]' }
//! ```
//! Sums are of whole numbers. A path that leads nowhere makes the event a bad one, except after
//! `exists`. Only ordered fields can be read, and only where an ordered field is written.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::definition::{Kind, NoSuchPlace, ordered};
use super::operation::{Action, Operation};
use super::value::Value;

/// Bytes of a statement.
const STATEMENT_BYTES: usize = 1024;
/// Expressions within each other.
const DEPTH: usize = 16;

/// Words that mean something where a value is needed, so that no field of that name can be read.
pub(super) const RESERVED: [&str; 8] =
    ["and", "or", "not", "when", "exists", "true", "false", "null"];

/// Why a statement is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadStatement {
    /// It does not follow the grammar.
    #[error("at byte {at}: {problem}")]
    Grammar {
        /// Where.
        at: usize,
        /// What is wrong there.
        problem: String,
    },
    /// There is no such field.
    #[error("there is no field {field:?}")]
    NoField {
        /// The field named.
        field: String,
    },
    /// The field's type cannot do that.
    #[error("field {field} is a {kind}, which has no {action:?}; it has {has}")]
    WrongAction {
        /// The field named.
        field: String,
        /// Its type.
        kind: String,
        /// What was to be done.
        action: &'static str,
        /// What it can do.
        has: &'static str,
    },
    /// A map without a key, or a key on something else.
    #[error("field {field} is a {kind}: {problem}")]
    Key {
        /// The field named.
        field: String,
        /// Its type.
        kind: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// An ordered field cannot do that.
    #[error("field {field} is ordered: {problem}")]
    Ordered {
        /// The field named.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// It reads a field that it cannot read: what is merged does not know the order, and what is in
    /// order does not know what is merged.
    #[error("field {field} is {kind} and cannot read {read}, which is {of}")]
    Reads {
        /// The field that is written.
        field: String,
        /// Its type.
        kind: String,
        /// The field that is read.
        read: String,
        /// The type of that one.
        of: String,
    },
    /// Too long.
    #[error("has {bytes} bytes, at most {STATEMENT_BYTES} are allowed")]
    TooLong {
        /// How many.
        bytes: usize,
    },
}

/// Why a statement cannot be carried out on an event. The same in every region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// The payload is not JSON.
    #[error("the payload is no JSON: {0}")]
    NoJson(String),
    /// A path leads nowhere.
    #[error("there is no {0} in the payload")]
    NoPath(String),
    /// A value is not of the kind that is needed.
    #[error("{what} is {found}, not {wanted}")]
    Kind {
        /// What was looked at.
        what: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A sum that does not fit.
    #[error("{0} does not fit into 64 bits")]
    Overflow(String),
    /// A value that is too long.
    #[error(transparent)]
    TooLong(#[from] super::value::ValueTooLong),
}

/// What a statement sees of an event.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    /// Read when a path asks for it: events of any other form can be counted, too.
    pub(crate) payload: Payload<'a>,
    pub(crate) stream: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) region: &'a str,
    pub(crate) unix_ms: u64,
    /// The ordered fields as they were before the event; none where fields are merged.
    pub(crate) ordered: &'a [Value],
}

/// A payload, read as JSON at most once.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    bytes: &'a [u8],
    json: OnceCell<Result<Json, BadPayload>>,
}

impl<'a> Payload<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, json: OnceCell::new() }
    }
    fn json(&self) -> Result<&Json, BadPayload> {
        let read = || match self.bytes {
            [] => Ok(Json::Null),
            bytes => serde_json::from_slice(bytes).map_err(|e| BadPayload::NoJson(e.to_string())),
        };
        self.json.get_or_init(read).as_ref().map_err(Clone::clone)
    }
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    text: String,
    field: String,
    /// Which of the ordered fields it is about; none if the field is merged.
    ordered: Option<usize>,
    key: Option<Expr>,
    verb: Verb,
    argument: Option<Expr>,
    when: Option<Expr>,
}

/// What a statement does to an ordered field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// This takes its place.
    Set(Value),
    /// This is added to it.
    Add(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Plus,
    Minus,
    Set,
    Offer,
    Add,
    Remove,
    Enable,
    Disable,
    Clear,
    RemoveKey,
}

impl Verb {
    fn read(token: &Token<'_>) -> Option<Self> {
        Some(match token {
            Token::Sign("+=") => Self::Plus,
            Token::Sign("-=") => Self::Minus,
            Token::Sign("=") => Self::Set,
            Token::Word("offer") => Self::Offer,
            Token::Word("add") => Self::Add,
            Token::Word("remove") => Self::Remove,
            Token::Word("enable") => Self::Enable,
            Token::Word("disable") => Self::Disable,
            Token::Word("clear") => Self::Clear,
            Token::Word("remove-key") => Self::RemoveKey,
            _ => return None,
        })
    }
    fn takes_argument(self) -> bool {
        !matches!(self, Self::Enable | Self::Disable | Self::Clear | Self::RemoveKey)
    }
    fn action(self, value: Value) -> Action {
        match self {
            Self::Plus => Action::Increment(1),
            Self::Minus => Action::Increment(-1),
            Self::Set => Action::Set(value),
            Self::Offer => Action::Offer(value),
            Self::Add => Action::Add(value),
            Self::Remove => Action::Remove(value),
            Self::Enable => Action::Enable,
            Self::Disable => Action::Disable,
            Self::Clear => Action::Clear,
            Self::RemoveKey => Action::RemoveKey,
        }
    }
}

impl Statement {
    /// Reads a statement about one of `fields`.
    ///
    /// # Errors
    /// Any [`BadStatement`].
    pub fn parse(text: &str, fields: &BTreeMap<String, Kind>) -> Result<Self, BadStatement> {
        if text.len() > STATEMENT_BYTES {
            return Err(BadStatement::TooLong { bytes: text.len() });
        }
        let (tokens, end) = (tokens(text)?, text.len());
        let mut parser = Parser { tokens, next: 0, end, depth: 0, fields, field: String::new() };
        let field = match parser.take() {
            Some(Token::Word(word)) => (*word).to_owned(),
            _ => return Err(parser.wrong_last("a statement begins with the name of a field")),
        };
        parser.field.clone_from(&field);
        let key = match parser.accept(&Token::Sign("[")) {
            true => {
                let key = parser.expr()?;
                parser.expect("]")?;
                Some(key)
            }
            false => None,
        };
        let verb = parser.take().and_then(Verb::read);
        let verb = verb.ok_or_else(|| {
            parser.wrong_last(
                "+=, -=, =, offer, add, remove, enable, disable, clear or remove-key is needed",
            )
        })?;
        let argument = if verb.takes_argument() { Some(parser.expr()?) } else { None };
        let when = match parser.accept(&Token::Word("when")) {
            true => Some(parser.expr()?),
            false => None,
        };
        if parser.take().is_some() {
            return Err(parser.wrong_last("nothing more is expected"));
        }
        let ordered = ordered(fields).position(|(name, _)| *name == field);
        let statement = Self { text: text.to_owned(), field, ordered, key, verb, argument, when };
        statement.check(fields)?;
        Ok(statement)
    }

    fn check(&self, fields: &BTreeMap<String, Kind>) -> Result<(), BadStatement> {
        let field = self.field.clone();
        let Some(kind) = fields.get(&field) else { return Err(BadStatement::NoField { field }) };
        if self.ordered.is_some() {
            return self.check_ordered();
        }
        let action = self.verb.action(Value::Null);
        let key = |problem| {
            let (field, kind) = (self.field.clone(), kind.to_string());
            Err(BadStatement::Key { field, kind, problem })
        };
        let inner = match kind.reached(self.key.is_some(), &action) {
            Ok(Some(inner)) => inner,
            Ok(None) => return Ok(()),
            Err(NoSuchPlace::KeyMissing) => return key("name the key, in brackets"),
            Err(NoSuchPlace::NoKeys) => return key("only maps have keys"),
        };
        // The elements of a list have ids that no payload knows.
        match inner.admits(&action) && *inner != Kind::List {
            true => Ok(()),
            false => {
                let (action, has) = (action.name(), inner.actions());
                Err(BadStatement::WrongAction { field, kind: kind.to_string(), action, has })
            }
        }
    }

    fn check_ordered(&self) -> Result<(), BadStatement> {
        let problem = match self.verb {
            _ if self.key.is_some() => "only maps have keys".to_owned(),
            Verb::Set | Verb::Plus | Verb::Minus => return Ok(()),
            verb => {
                format!("it has =, += and -=, and no {:?}", verb.action(Value::Null).name())
            }
        };
        Err(BadStatement::Ordered { field: self.field.clone(), problem })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// The field that it is about.
    pub(crate) fn field(&self) -> &str {
        &self.field
    }
    /// Which of the definition's ordered fields it is about; none if the field is merged.
    pub(crate) fn ordered(&self) -> Option<usize> {
        self.ordered
    }

    /// What it does to its ordered field on an event; nothing if its condition is false.
    pub(crate) fn change(&self, scope: &Scope<'_>) -> Result<Option<Change>, BadPayload> {
        if let Some(when) = &self.when
            && !when.truth(scope)?
        {
            return Ok(None);
        }
        let expr = self.argument.as_ref().expect("what ordered fields have takes an argument");
        Ok(Some(match self.verb {
            Verb::Plus | Verb::Minus => Change::Add(self.amount(expr, scope)?),
            _ => Change::Set(expr.evaluate(scope)?),
        }))
    }

    /// What is added.
    fn amount(&self, expr: &Expr, scope: &Scope<'_>) -> Result<i64, BadPayload> {
        let sign = if self.verb == Verb::Minus { -1 } else { 1 };
        let by = expr.whole(scope)?.checked_mul(sign);
        by.ok_or_else(|| BadPayload::Overflow(expr.to_text()))
    }

    /// What it does on an event; nothing if its condition is false.
    pub(crate) fn evaluate(&self, scope: &Scope<'_>) -> Result<Option<Operation>, BadPayload> {
        if let Some(when) = &self.when
            && !when.truth(scope)?
        {
            return Ok(None);
        }
        let key = match &self.key {
            None => None,
            Some(expr) => {
                let value = expr.evaluate(scope)?;
                let wrong = || BadPayload::Kind {
                    what: expr.to_text(),
                    found: value.kind(),
                    wanted: "a text, whole number or truth value",
                };
                Some(value.to_key().ok_or_else(wrong)?)
            }
        };
        let argument = self.argument.as_ref();
        let action = match self.verb {
            Verb::Plus | Verb::Minus => {
                let expr = argument.expect("sums have an argument");
                Action::Increment(self.amount(expr, scope)?)
            }
            verb => match argument {
                Some(expr) => verb.action(expr.evaluate(scope)?),
                None => verb.action(Value::Null),
            },
        };
        Ok(Some(Operation { field: self.field.clone(), key, action }))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    Constant(Value),
    Path(Vec<Step>),
    Exists(Vec<Step>),
    Stream,
    Type,
    Region,
    Time,
    /// An ordered field, as it was before the event.
    Field {
        name: Box<str>,
        at: usize,
    },
    Min(Box<[Expr; 2]>),
    Max(Box<[Expr; 2]>),
    Plus(Box<[Expr; 2]>),
    Minus(Box<[Expr; 2]>),
    Compare(Comparison, Box<[Expr; 2]>),
    And(Box<[Expr; 2]>),
    Or(Box<[Expr; 2]>),
    Not(Box<Expr>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    At(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

fn path_text(steps: &[Step]) -> String {
    let mut text = String::from("$");
    for step in steps {
        match step {
            Step::Name(name) => text.extend([".", name.as_str()]),
            Step::At(at) => text.push_str(&format!("[{at}]")),
        }
    }
    text
}

fn follow<'a>(payload: &'a Json, steps: &[Step]) -> Option<&'a Json> {
    steps.iter().try_fold(payload, |json, step| match step {
        Step::Name(name) => json.get(name.as_str()),
        Step::At(at) => json.get(at),
    })
}

impl Expr {
    fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, BadPayload> {
        Ok(match self {
            Self::Constant(value) => value.clone(),
            Self::Path(steps) => {
                let found = follow(scope.payload.json()?, steps);
                let found = found.ok_or_else(|| BadPayload::NoPath(path_text(steps)))?;
                Value::from_json(found)?
            }
            Self::Exists(steps) => Value::Bool(follow(scope.payload.json()?, steps).is_some()),
            Self::Stream => Value::from(scope.stream),
            Self::Type => Value::from(scope.kind),
            Self::Region => Value::from(scope.region),
            Self::Time => Value::Int(i64::try_from(scope.unix_ms).unwrap_or(i64::MAX)),
            Self::Field { at, .. } => scope.ordered[*at].clone(),
            Self::Min(sides) => Self::best(sides, scope, Value::min)?,
            Self::Max(sides) => Self::best(sides, scope, Value::max)?,
            Self::Plus(sides) => self.sum(sides, scope, i64::checked_add)?,
            Self::Minus(sides) => self.sum(sides, scope, i64::checked_sub)?,
            Self::Compare(comparison, sides) => {
                let [left, right] = [sides[0].evaluate(scope)?, sides[1].evaluate(scope)?];
                Value::Bool(match comparison {
                    Comparison::Equal => left == right,
                    Comparison::Unequal => left != right,
                    ordering => {
                        sides[0].check_alike(&left, &right)?;
                        match ordering {
                            Comparison::Less => left < right,
                            Comparison::LessOrEqual => left <= right,
                            Comparison::Greater => left > right,
                            _ => left >= right,
                        }
                    }
                })
            }
            Self::And(sides) => Value::Bool(sides[0].truth(scope)? && sides[1].truth(scope)?),
            Self::Or(sides) => Value::Bool(sides[0].truth(scope)? || sides[1].truth(scope)?),
            Self::Not(inner) => Value::Bool(!inner.truth(scope)?),
        })
    }

    /// The better of two of one kind. Null gives way: nothing was there yet.
    fn best(
        sides: &[Self; 2],
        scope: &Scope<'_>,
        best: fn(Value, Value) -> Value,
    ) -> Result<Value, BadPayload> {
        match (sides[0].evaluate(scope)?, sides[1].evaluate(scope)?) {
            (Value::Null, other) | (other, Value::Null) => Ok(other),
            (left, right) => {
                sides[0].check_alike(&left, &right)?;
                Ok(best(left, right))
            }
        }
    }

    /// Only values of one kind are less or greater.
    fn check_alike(&self, own: &Value, other: &Value) -> Result<(), BadPayload> {
        match std::mem::discriminant(own) == std::mem::discriminant(other) {
            true => Ok(()),
            false => {
                let (what, found) = (self.to_text(), own.kind());
                Err(BadPayload::Kind { what, found, wanted: other.kind() })
            }
        }
    }

    fn sum(
        &self,
        sides: &[Expr; 2],
        scope: &Scope<'_>,
        sum: fn(i64, i64) -> Option<i64>,
    ) -> Result<Value, BadPayload> {
        let [left, right] = [sides[0].whole(scope)?, sides[1].whole(scope)?];
        let sum = sum(left, right).ok_or_else(|| BadPayload::Overflow(self.to_text()))?;
        Ok(Value::Int(sum))
    }

    fn whole(&self, scope: &Scope<'_>) -> Result<i64, BadPayload> {
        match self.evaluate(scope)? {
            Value::Int(whole) => Ok(whole),
            other => Err(BadPayload::Kind {
                what: self.to_text(),
                found: other.kind(),
                wanted: "a whole number of 64 bits",
            }),
        }
    }

    fn truth(&self, scope: &Scope<'_>) -> Result<bool, BadPayload> {
        match self.evaluate(scope)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(BadPayload::Kind {
                what: self.to_text(),
                found: other.kind(),
                wanted: "a truth value",
            }),
        }
    }

    /// For messages.
    fn to_text(&self) -> String {
        match self {
            Self::Constant(value) => value.to_string(),
            Self::Path(steps) => path_text(steps),
            Self::Exists(steps) => format!("exists {}", path_text(steps)),
            Self::Stream => "@stream".into(),
            Self::Type => "@type".into(),
            Self::Region => "@region".into(),
            Self::Time => "@time".into(),
            Self::Field { name, .. } => name.to_string(),
            Self::Min(sides) => format!("min({}, {})", sides[0].to_text(), sides[1].to_text()),
            Self::Max(sides) => format!("max({}, {})", sides[0].to_text(), sides[1].to_text()),
            Self::Plus(sides) => format!("{} + {}", sides[0].to_text(), sides[1].to_text()),
            Self::Minus(sides) => format!("{} - {}", sides[0].to_text(), sides[1].to_text()),
            Self::Compare(..) | Self::And(_) | Self::Or(_) | Self::Not(_) => "the condition".into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    Number(i64),
    Text(String),
}

const SIGNS: [&str; 19] = [
    "+=", "-=", "==", "!=", "<=", ">=", "=", "<", ">", "+", "-", "(", ")", "[", "]", "$", ".", "@",
    ",",
];

fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, BadStatement> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let wrong = |at, problem: &str| BadStatement::Grammar { at, problem: problem.to_owned() };
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, len) = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if first.is_ascii_alphabetic() || first == '_' {
            let len = word_len(rest);
            (Token::Word(&rest[..len]), len)
        } else if first.is_ascii_digit() {
            let len = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
            let number = rest[..len].parse().map_err(|_| wrong(at, "the number is too large"))?;
            (Token::Number(number), len)
        } else if first == '"' {
            // JSON's own rules for quotes and escapes.
            let mut texts = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            match texts.next() {
                Some(Ok(quoted)) => (Token::Text(quoted), texts.byte_offset()),
                _ => return Err(wrong(at, "the text has no end, or a wrong escape")),
            }
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign = sign.ok_or_else(|| wrong(at, &format!("{first:?} has no meaning here")))?;
            (Token::Sign(sign), sign.len())
        };
        tokens.push((at, token));
        at += len;
    }
    Ok(tokens)
}

/// Letters, digits and `_`; and a `-` between letters, as in `remove-key`.
fn word_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let inside = |at: usize| {
        let letter = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphabetic);
        let plain = bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_';
        plain || bytes[at] == b'-' && letter(at - 1) && letter(at + 1)
    };
    (1..bytes.len()).find(|at| !inside(*at)).unwrap_or(bytes.len())
}

const VALUE_NEEDED: &str = "a path, a number, a text or another value is needed";

struct Parser<'a> {
    tokens: Vec<(usize, Token<'a>)>,
    next: usize,
    end: usize,
    depth: usize,
    fields: &'a BTreeMap<String, Kind>,
    /// The one that the statement is about.
    field: String,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }
    fn take(&mut self) -> Option<&Token<'a>> {
        self.next += 1;
        self.tokens.get(self.next - 1).map(|(_, token)| token)
    }
    fn accept(&mut self, token: &Token<'_>) -> bool {
        let accepted = self.peek() == Some(token);
        self.next += usize::from(accepted);
        accepted
    }
    fn expect(&mut self, sign: &'static str) -> Result<(), BadStatement> {
        match self.accept(&Token::Sign(sign)) {
            true => Ok(()),
            false => Err(self.wrong(&format!("{sign:?} is needed"))),
        }
    }
    fn wrong(&self, problem: &str) -> BadStatement {
        let at = self.tokens.get(self.next).map_or(self.end, |(at, _)| *at);
        BadStatement::Grammar { at, problem: problem.to_owned() }
    }
    fn wrong_last(&mut self, problem: &str) -> BadStatement {
        self.next -= 1;
        self.wrong(problem)
    }

    fn expr(&mut self) -> Result<Expr, BadStatement> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.wrong(&format!("more than {DEPTH} expressions within each other")));
        }
        let mut left = self.and()?;
        while self.accept(&Token::Word("or")) {
            left = Expr::Or(Box::new([left, self.and()?]));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, BadStatement> {
        let mut left = self.not()?;
        while self.accept(&Token::Word("and")) {
            left = Expr::And(Box::new([left, self.not()?]));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr, BadStatement> {
        let mut negate = false;
        while self.accept(&Token::Word("not")) {
            negate = !negate;
        }
        let compare = self.compare()?;
        Ok(if negate { Expr::Not(Box::new(compare)) } else { compare })
    }

    fn compare(&mut self) -> Result<Expr, BadStatement> {
        let left = self.sum()?;
        let comparison = match self.peek() {
            Some(Token::Sign("==")) => Comparison::Equal,
            Some(Token::Sign("!=")) => Comparison::Unequal,
            Some(Token::Sign("<")) => Comparison::Less,
            Some(Token::Sign("<=")) => Comparison::LessOrEqual,
            Some(Token::Sign(">")) => Comparison::Greater,
            Some(Token::Sign(">=")) => Comparison::GreaterOrEqual,
            _ => return Ok(left),
        };
        self.next += 1;
        Ok(Expr::Compare(comparison, Box::new([left, self.sum()?])))
    }

    fn sum(&mut self) -> Result<Expr, BadStatement> {
        let mut left = self.term()?;
        loop {
            if self.accept(&Token::Sign("+")) {
                left = Expr::Plus(Box::new([left, self.term()?]));
            } else if self.accept(&Token::Sign("-")) {
                left = Expr::Minus(Box::new([left, self.term()?]));
            } else {
                return Ok(left);
            }
        }
    }

    fn term(&mut self) -> Result<Expr, BadStatement> {
        let token = self.take().cloned();
        Ok(match token {
            Some(Token::Number(number)) => Expr::Constant(Value::Int(number)),
            Some(Token::Text(text)) => Expr::Constant(Value::from(&*text)),
            Some(Token::Word("true")) => Expr::Constant(Value::Bool(true)),
            Some(Token::Word("false")) => Expr::Constant(Value::Bool(false)),
            Some(Token::Word("null")) => Expr::Constant(Value::Null),
            Some(Token::Word("exists")) => {
                self.expect("$")?;
                Expr::Exists(self.path()?)
            }
            Some(Token::Sign("-")) => match self.take() {
                Some(Token::Number(number)) => Expr::Constant(Value::Int(-number)),
                _ => return Err(self.wrong_last("a number is needed after '-'")),
            },
            Some(Token::Sign("$")) => Expr::Path(self.path()?),
            Some(Token::Sign("@")) => match self.take() {
                Some(Token::Word("stream")) => Expr::Stream,
                Some(Token::Word("type")) => Expr::Type,
                Some(Token::Word("region")) => Expr::Region,
                Some(Token::Word("time")) => Expr::Time,
                _ => return Err(self.wrong_last("@stream, @type, @region or @time")),
            },
            Some(Token::Sign("(")) => {
                let inner = self.expr()?;
                self.expect(")")?;
                inner
            }
            Some(Token::Word("min")) if self.accept(&Token::Sign("(")) => Expr::Min(self.two()?),
            Some(Token::Word("max")) if self.accept(&Token::Sign("(")) => Expr::Max(self.two()?),
            Some(Token::Word(name)) if !RESERVED.contains(&name) => return self.field(name),
            _ => return Err(self.wrong_last(VALUE_NEEDED)),
        })
    }

    /// What is between the brackets of a function.
    fn two(&mut self) -> Result<Box<[Expr; 2]>, BadStatement> {
        let left = self.expr()?;
        self.expect(",")?;
        let right = self.expr()?;
        self.expect(")")?;
        Ok(Box::new([left, right]))
    }

    /// The word before is the name of a field that is read.
    fn field(&mut self, name: &str) -> Result<Expr, BadStatement> {
        let kind = |name: &str| match self.fields.get(name)? {
            Kind::Ordered(_) => Some("ordered".to_owned()),
            kind => Some(format!("a {kind}")),
        };
        let (field, read) = (self.field.clone(), name.to_owned());
        match (kind(&field), kind(name)) {
            (Some(kind), Some(of)) if kind == "ordered" && of == "ordered" => {
                let at = ordered(self.fields).position(|(known, _)| known == name);
                Ok(Expr::Field { name: name.into(), at: at.expect("the field is ordered") })
            }
            (Some(kind), Some(of)) => Err(BadStatement::Reads { field, kind, read, of }),
            (Some(kind), None) if kind == "ordered" => Err(BadStatement::NoField { field: read }),
            _ => Err(self.wrong_last(VALUE_NEEDED)),
        }
    }

    fn path(&mut self) -> Result<Vec<Step>, BadStatement> {
        let mut steps = Vec::new();
        loop {
            if self.accept(&Token::Sign(".")) {
                match self.take().cloned() {
                    Some(Token::Word(name)) => steps.push(Step::Name(name.to_owned())),
                    _ => return Err(self.wrong_last("a name is needed after '.'")),
                }
            } else if self.accept(&Token::Sign("[")) {
                match self.take().cloned() {
                    Some(Token::Number(at)) => steps.push(Step::At(at as usize)),
                    Some(Token::Text(name)) => steps.push(Step::Name(name)),
                    _ => return Err(self.wrong_last("a number or a text is needed after '['")),
                }
                self.expect("]")?;
            } else {
                return Ok(steps);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> BTreeMap<String, Kind> {
        [
            ("n", "pn-counter"),
            ("last", "lww-register"),
            ("tags", "or-set"),
            ("by", "map of pn-counter"),
            ("up", "flag"),
            ("list", "list"),
            ("grown", "g-counter"),
            ("balance", "ordered from 0"),
            ("state", "ordered"),
        ]
        .map(|(name, kind)| (name.to_owned(), kind.parse().unwrap()))
        .into()
    }

    fn run(text: &str, payload: &str) -> Result<Option<Operation>, BadPayload> {
        let payload = Payload::new(payload.as_bytes());
        let scope =
            Scope { payload, stream: "a-1", kind: "E", region: "eu", unix_ms: 7, ordered: &[] };
        Statement::parse(text, &fields()).unwrap().evaluate(&scope)
    }

    /// With `balance` 10 and `state` as given.
    fn change(text: &str, state: Value, payload: &str) -> Result<Option<Change>, String> {
        let payload = Payload::new(payload.as_bytes());
        let ordered = &[Value::Int(10), state];
        let scope = Scope { payload, stream: "a-1", kind: "E", region: "eu", unix_ms: 7, ordered };
        let statement = Statement::parse(text, &fields()).unwrap();
        statement.change(&scope).map_err(|bad| bad.to_string())
    }

    #[test]
    fn ordered_fields_are_read_as_they_were_before_the_event() {
        let set = |value| Ok(Some(Change::Set(value)));
        for (text, wanted) in [
            ("balance = balance - $.a when balance >= $.a", set(Value::Int(7))),
            ("balance = 1 when balance < $.a", Ok(None)),
            ("balance -= $.a + balance", Ok(Some(Change::Add(-13)))),
            ("balance += max($.a, 4)", Ok(Some(Change::Add(4)))),
            ("state = min(balance, max($.a, 4) - 1)", set(Value::Int(3))),
            ("state = max(state, $.t)", set("x".into())),
            ("state = @region when state == null or $.a == 1", set("eu".into())),
            ("state = 1 when state > 1", Err("state is null, not a whole number".into())),
            ("state = max(balance, $.t)", Err("balance is a whole number, not text".into())),
            ("balance += state", Err("state is null, not a whole number of 64 bits".into())),
        ] {
            assert_eq!(change(text, Value::Null, r#"{"a":3,"t":"x"}"#), wanted, "{text}");
        }
        let later = change("state = \"paid\" when state == \"placed\"", "placed".into(), "{}");
        assert_eq!(later, set("paid".into()));
    }

    fn action(text: &str, payload: &str) -> Action {
        run(text, payload).unwrap().unwrap().action
    }

    #[test]
    fn statements_take_what_they_need_from_the_payload() {
        let payload = r#"{"a": 5, "b": {"c d": [1, 2, {"e": "x"}]}, "t": true}"#;
        for (text, wanted) in [
            ("n += $.a - 2 + 4", Action::Increment(7)),
            ("n -= $.a", Action::Increment(-5)),
            ("n += -3", Action::Increment(-3)),
            (r#"last = $.b["c d"][2].e"#, Action::Set("x".into())),
            ("last = $.b", Action::Set(Value::Json(r#"{"c d":[1,2,{"e":"x"}]}"#.into()))),
            ("last = @region", Action::Set("eu".into())),
            ("last = @time", Action::Set(Value::Int(7))),
            (r#"tags add "q\"""#, Action::Add("q\"".into())),
            ("tags remove @stream", Action::Remove("a-1".into())),
            ("up enable when $.t", Action::Enable),
            ("up disable when $.a > 4 and not ($.a == 6 or exists $.z)", Action::Disable),
            ("by[$.a] += 1", Action::Increment(1)),
            ("by[$.t] remove-key", Action::RemoveKey),
            ("by clear", Action::Clear),
        ] {
            assert_eq!(action(text, payload), wanted, "{text}");
        }
        assert_eq!(run("by[$.a] += 1", payload).unwrap().unwrap().key.as_deref(), Some("5"));
        assert_eq!(run("n += 1 when $.a < 5", payload), Ok(None));
        assert_eq!(run("n += 1", "no JSON").unwrap().unwrap().action, Action::Increment(1));
        assert_eq!(run("n += $.z when exists $.z", payload), Ok(None));
    }

    #[test]
    fn what_a_payload_lacks_is_named() {
        for (text, wanted) in [
            ("n += $.z", "there is no $.z in the payload"),
            ("n += $.s", "$.s is text, not a whole number of 64 bits"),
            ("n += $.f", "$.f is a fraction, array or object, not a whole number of 64 bits"),
            ("n += $.max + 1", "$.max + 1 does not fit into 64 bits"),
            ("n -= 0 - $.max - 1", "0 - $.max - 1 does not fit into 64 bits"),
            ("n += 1 when $.s", "$.s is text, not a truth value"),
            ("n += 1 when $.s > 1", "$.s is text, not a whole number"),
            ("by[$.none] += 1", "$.none is null, not a text, whole number or truth value"),
        ] {
            let payload = r#"{"s":"x","f":1.5,"max":9223372036854775807,"none":null}"#;
            assert_eq!(run(text, payload).unwrap_err().to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_statement_is_refused_where_it_goes_wrong() {
        for (text, wanted) in [
            ("", "at byte 0: a statement begins with the name of a field"),
            ("n", "at byte 1: +=, -=, =, offer"),
            ("n += ", "at byte 5: a path, a number"),
            ("n += 1 1", "at byte 7: nothing more is expected"),
            ("n += $.", "at byte 7: a name is needed"),
            ("n += #", "at byte 5: '#' has no meaning here"),
            ("n += @now", "at byte 6: @stream, @type"),
            (r#"tags add "x"#, "at byte 9: the text has no end"),
            ("n += 99999999999999999999", "at byte 5: the number is too large"),
            ("m += 1", "there is no field \"m\""),
            ("grown -= 1", "field grown is a g-counter, which has no \"increment\""),
            ("list add 1", "field list is a list, which has no \"add\""),
            ("by += 1", "field by is a map of pn-counter: name the key"),
            ("n[1] += 1", "field n is a pn-counter: only maps have keys"),
            ("balance offer 1", "field balance is ordered: it has =, += and -=, and no \"offer\""),
            ("balance clear", "field balance is ordered: it has =, += and -=, and no \"clear\""),
            ("balance[1] = 1", "field balance is ordered: only maps have keys"),
            ("balance = state + m", "there is no field \"m\""),
            ("balance = last", "field balance is ordered and cannot read last, which is a lww-reg"),
            ("n += balance", "field n is a pn-counter and cannot read balance, which is ordered"),
            (
                "by[state] += 1",
                "field by is a map of pn-counter and cannot read state, which is ord",
            ),
            (
                "n += 1 when n > 1",
                "field n is a pn-counter and cannot read n, which is a pn-counter",
            ),
            ("last = x", "at byte 7: a path, a number"),
            ("balance = max(1)", "at byte 15: \",\" is needed"),
            ("balance = and", "at byte 10: a path, a number"),
        ] {
            let error = Statement::parse(text, &fields()).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{text}: {error}");
        }
        let deep = format!("n += {}1{}", "(".repeat(40), ")".repeat(40));
        assert!(
            Statement::parse(&deep, &fields())
                .unwrap_err()
                .to_string()
                .contains("within each other")
        );
        let long = format!("n += {}", "1 + ".repeat(300));
        assert_eq!(Statement::parse(&long, &fields()), Err(BadStatement::TooLong { bytes: 1205 }));
    }
}
