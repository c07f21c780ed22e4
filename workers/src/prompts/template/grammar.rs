//! What a template may say, read by a parser of our own before the engine sees it. It allows little and
//! knows everything it allows; the engine's own parser is asked afterwards.
//!
//! ```text
//! template  = { text | "{#" .. "#}" | "{{" value { "|" filter } "}}" | if | for }
//! if        = "{% if" condition "%}" .. { "{% elif" condition "%}" .. } [ "{% else %}" .. ] "{% endif %}"
//! for       = "{% for" name "in tools %}" .. "{% endfor %}"          not within another
//! condition = test { ( "and" | "or" ) test }
//! test      = [ "not" ] operand [ ( "==" | "!=" ) operand ]
//! operand   = variable | "tools" | string
//! value     = variable | "tools" "|" "length" | string
//! filter    = upper | lower | capitalize | title | trim | length | truncate(length=number)
//! ```

use super::super::variables::{FOREIGN, LOOP, OF_A_TOOL, TOOLS, VARIABLES};

/// The most outputs and tags of one template.
const MAX_TAGS: usize = 200;
/// How deep one `if` may stand within others.
const MAX_DEPTH: usize = 8;
/// The most `elif` of one `if`: the engine reads each within the one before it.
const MAX_ELIFS: usize = 16;
/// The most `if` and `elif` around one place together: so deep does the engine recurse.
const MAX_LEVELS: usize = 17;
/// The most tests of one condition.
const MAX_TESTS: usize = 8;
/// The most filters of one value.
const MAX_FILTERS: usize = 4;
/// The longest name of a loop's variable, in bytes.
const MAX_NAME_BYTES: usize = 32;
/// The largest length to cut a value to.
const MAX_LENGTH: usize = 100_000;
/// Filters without arguments.
const FILTERS: [&str; 6] = ["upper", "lower", "capitalize", "title", "trim", "length"];
/// What the engine takes for something else than a variable's name.
const RESERVED: [&str; 20] = [
    "true", "True", "false", "False", "loop", "self", "and", "or", "not", "is", "in", "continue", "break", "none",
    "None", "null", "if", "else", "for", "tools",
];

/// What an allowed template uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::prompts) struct Outline {
    /// Whether it speaks of tools.
    pub(in crate::prompts) tools: bool,
    /// The variables whose values it tells, in whatever form, and somebody else chose.
    pub(in crate::prompts) foreign: Vec<&'static str>,
}

/// Why a template is not allowed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::prompts) struct Refused {
    /// The line, from 1.
    pub(in crate::prompts) line: usize,
    /// In a sentence.
    pub(in crate::prompts) why: String,
}

/// Reads a template. What is allowed costs at most its tags times its tools.
pub(in crate::prompts) fn check(text: &str) -> Result<Outline, Refused> {
    let mut reader = Reader { text, at: 0, tags: 0, open: Vec::new(), outline: Outline::default() };
    while reader.next()? {}
    match reader.open.last() {
        None => Ok(reader.outline),
        Some(Open::If { .. }) => Err(reader.refuse("An `if` is not closed: `{% endif %}` is missing.")),
        Some(Open::For { .. }) => Err(reader.refuse("A `for` is not closed: `{% endfor %}` is missing.")),
    }
}

/// What is open around the place that is read.
#[derive(Debug)]
enum Open {
    If { has_else: bool, elifs: usize },
    For { variable: String },
}

#[derive(Debug)]
struct Reader<'a> {
    text: &'a str,
    at: usize,
    tags: usize,
    open: Vec<Open>,
    outline: Outline,
}

/// The smallest piece within a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    String,
    Number(usize),
    Sign(&'a str),
    End,
}

impl<'a> Reader<'a> {
    fn refuse(&self, why: impl Into<String>) -> Refused {
        let before = &self.text[..self.at.min(self.text.len())];
        Refused { line: before.matches('\n').count() + 1, why: why.into() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Reads up to the end of the next tag; false at the end of the text.
    fn next(&mut self) -> Result<bool, Refused> {
        let starts = self.rest().match_indices('{').map(|(at, _)| at);
        let is_start = |at: &usize| {
            let next = self.rest().as_bytes().get(at + 1);
            matches!(next, Some(b'{' | b'%' | b'#'))
        };
        let Some(start) = starts.into_iter().find(is_start) else {
            self.at = self.text.len();
            return Ok(false);
        };
        self.at += start;
        let kind = self.rest().as_bytes()[1];
        self.at += 2;
        if kind == b'#' {
            let Some(end) = self.rest().find("#}") else { return Err(self.refuse("A comment is not closed.")) };
            self.at += end + 2;
            return Ok(true);
        }
        self.tags += 1;
        if self.tags > MAX_TAGS {
            return Err(self.refuse(format!("A template has at most {MAX_TAGS} values and tags.")));
        }
        if self.rest().starts_with('-') {
            self.at += 1;
        }
        if kind == b'{' { self.output() } else { self.tag() }?;
        Ok(true)
    }

    /// The next token; `end` closes the tag.
    fn token(&mut self, end: &str) -> Result<Token<'a>, Refused> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        let rest = self.rest();
        for close in [end, &format!("-{end}")] {
            if rest.starts_with(close) {
                self.at += close.len();
                return Ok(Token::End);
            }
        }
        let Some(first) = rest.chars().next() else { return Err(self.refuse("A tag is not closed.")) };
        let length = |is_part: fn(char) -> bool| rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        let (token, length) = match first {
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = length(|character| character.is_ascii_alphanumeric() || character == '_');
                (Token::Name(&rest[..length]), length)
            }
            '0'..='9' => {
                let length = length(|character| character.is_ascii_digit());
                let number = rest[..length].parse().ok().filter(|number| *number <= MAX_LENGTH);
                (Token::Number(number.ok_or_else(|| self.refuse("The number is too large."))?), length)
            }
            '"' | '\'' => {
                let close = rest[1..].find([first, '\\']).filter(|close| rest.as_bytes()[1 + *close] != b'\\');
                let close = close.ok_or_else(|| self.refuse("A string is not closed, or has a backslash."))?;
                (Token::String, close + 2)
            }
            _ => {
                let two = rest.get(..2).filter(|two| ["==", "!="].contains(two));
                let sign = two.or_else(|| rest.get(..1).filter(|one| [".", "|", "(", ")", "="].contains(one)));
                let unknown = || self.refuse(format!("`{first}` is nothing a template may say here."));
                let sign = sign.ok_or_else(unknown)?;
                (Token::Sign(sign), sign.len())
            }
        };
        self.at += length;
        Ok(token)
    }

    /// Looks at the next token without taking it.
    fn peek(&mut self, end: &str) -> Result<Token<'a>, Refused> {
        let at = self.at;
        let token = self.token(end);
        self.at = at;
        token
    }

    fn expect(&mut self, end: &str, wanted: Token<'_>, what: &str) -> Result<(), Refused> {
        if self.token(end)? == wanted { Ok(()) } else { Err(self.refuse(format!("Expected {what}."))) }
    }

    /// `{{ value | filter }}`.
    fn output(&mut self) -> Result<(), Refused> {
        const END: &str = "}}";
        let mut is_text = true;
        let is_list = match self.token(END)? {
            Token::String => false,
            Token::Name(TOOLS) => {
                self.outline.tools = true;
                true
            }
            Token::Name(name) => {
                self.told(END, name)?;
                is_text = name != "loop";
                false
            }
            _ => return Err(self.refuse("Expected a variable or a string.")),
        };
        let mut filters = 0;
        loop {
            match self.token(END)? {
                Token::End if is_list && filters == 0 => {
                    return Err(self.refuse("A list is no text: go through `tools` by `for`, or ask for its `length`."));
                }
                Token::End => return Ok(()),
                Token::Sign("|") if !is_text => return Err(self.refuse("What `loop` tells has no filters.")),
                Token::Sign("|") => {
                    filters += 1;
                    if filters > MAX_FILTERS {
                        return Err(self.refuse(format!("A value has at most {MAX_FILTERS} filters.")));
                    }
                    let is_length = self.filter(END)?;
                    if (is_list || is_length) && !(is_length && self.peek(END)? == Token::End) {
                        return Err(self.refuse("`length` stands alone, and is all that a list has."));
                    }
                }
                _ => return Err(self.refuse("Expected a filter or the end of the value.")),
            }
        }
    }

    /// The rest of a filter; true for `length`.
    fn filter(&mut self, end: &str) -> Result<bool, Refused> {
        match self.token(end)? {
            Token::Name(name) if FILTERS.contains(&name) => Ok(name == "length"),
            Token::Name("truncate") => {
                self.expect(end, Token::Sign("("), "`truncate(length=number)`")?;
                self.expect(end, Token::Name("length"), "`truncate(length=number)`")?;
                self.expect(end, Token::Sign("="), "`truncate(length=number)`")?;
                if !matches!(self.token(end)?, Token::Number(_)) {
                    return Err(self.refuse("Expected `truncate(length=number)`."));
                }
                self.expect(end, Token::Sign(")"), "`truncate(length=number)`").map(|()| false)
            }
            Token::Name(name) => Err(self.refuse(format!("There is no filter `{}` here.", shown(name)))),
            _ => Err(self.refuse("Expected a filter.")),
        }
    }

    /// The rest of a variable that is put into the text, noted if its value is somebody else's.
    fn told(&mut self, end: &str, first: &str) -> Result<(), Refused> {
        let name = self.variable(end, first)?;
        let foreign = FOREIGN.iter().find(|foreign| **foreign == name);
        if let Some(foreign) = foreign.filter(|foreign| !self.outline.foreign.contains(foreign)) {
            self.outline.foreign.push(foreign);
        }
        Ok(())
    }

    /// The rest of a variable that begins with this name; its documented name.
    fn variable(&mut self, end: &str, first: &str) -> Result<String, Refused> {
        let mut field = None;
        if self.peek(end)? == Token::Sign(".") {
            self.token(end)?;
            let Token::Name(name) = self.token(end)? else {
                return Err(self.refuse("Expected a field after the dot."));
            };
            field = Some(name);
        }
        let in_loop = self.open.iter().any(|open| matches!(open, Open::For { variable } if variable == first));
        let is_known = match field {
            Some(field) if in_loop => OF_A_TOOL.contains(&field),
            Some(field) if first == "loop" => {
                self.open.iter().any(|open| matches!(open, Open::For { .. })) && LOOP.contains(&field)
            }
            field => !in_loop && VARIABLES.contains(&(first, field.unwrap_or_default())),
        };
        if is_known {
            return Ok(format!("{}.{}", if in_loop { TOOLS } else { first }, field.unwrap_or_default()));
        }
        let name = field.map_or_else(|| shown(first), |field| format!("{}.{}", shown(first), shown(field)));
        Err(self.refuse(format!("There is no variable `{name}` here.")))
    }

    /// Refuses what stands too deep, whatever it is deep in.
    fn level(&self) -> Result<(), Refused> {
        let levels = self.open.iter().map(|open| if let Open::If { elifs, .. } = open { 1 + elifs } else { 0 });
        if levels.sum::<usize>() > MAX_LEVELS {
            return Err(self.refuse(format!("At most {MAX_LEVELS} `if` and `elif` stand around one place.")));
        }
        Ok(())
    }

    fn tag(&mut self) -> Result<(), Refused> {
        const END: &str = "%}";
        let Token::Name(name) = self.token(END)? else { return Err(self.refuse("Expected the name of a tag.")) };
        match name {
            "if" => {
                let depth = self.open.iter().filter(|open| matches!(open, Open::If { .. })).count();
                if depth >= MAX_DEPTH {
                    return Err(self.refuse(format!("One `if` stands within at most {} others.", MAX_DEPTH - 1)));
                }
                self.open.push(Open::If { has_else: false, elifs: 0 });
                self.level()?;
                self.condition(END)
            }
            "elif" => match self.open.last_mut() {
                Some(Open::If { has_else: false, elifs }) if *elifs < MAX_ELIFS => {
                    *elifs += 1;
                    self.level()?;
                    self.condition(END)
                }
                Some(Open::If { has_else: false, .. }) => {
                    Err(self.refuse(format!("An `if` has at most {MAX_ELIFS} `elif`.")))
                }
                _ => Err(self.refuse("`elif` stands within an `if`, before its `else`.")),
            },
            "else" => match self.open.last_mut() {
                Some(Open::If { has_else, .. }) if !*has_else => {
                    *has_else = true;
                    self.expect(END, Token::End, "`{% else %}`")
                }
                _ => Err(self.refuse("`else` stands within an `if`, once.")),
            },
            "endif" => match self.open.pop() {
                Some(Open::If { .. }) => self.expect(END, Token::End, "`{% endif %}`"),
                _ => Err(self.refuse("`endif` closes no `if`.")),
            },
            "for" => self.start_loop(END),
            "endfor" => match self.open.pop() {
                Some(Open::For { .. }) => self.expect(END, Token::End, "`{% endfor %}`"),
                _ => Err(self.refuse("`endfor` closes no `for`.")),
            },
            other => Err(self.refuse(format!("There is no tag `{}` here.", shown(other)))),
        }
    }

    fn start_loop(&mut self, end: &str) -> Result<(), Refused> {
        if self.open.iter().any(|open| matches!(open, Open::For { .. })) {
            return Err(self.refuse("A `for` does not stand within another."));
        }
        let Token::Name(variable) = self.token(end)? else { return Err(self.refuse("Expected a name after `for`.")) };
        let is_taken = RESERVED.contains(&variable) || VARIABLES.iter().any(|(name, _)| *name == variable);
        if is_taken || variable.len() > MAX_NAME_BYTES || variable.starts_with('_') {
            return Err(self.refuse("Choose another, short name after `for`."));
        }
        self.expect(end, Token::Name("in"), "`in`")?;
        self.expect(end, Token::Name(TOOLS), "`tools`: that is all a `for` goes through")?;
        self.expect(end, Token::End, "the end of the `for`")?;
        self.outline.tools = true;
        self.open.push(Open::For { variable: variable.to_owned() });
        Ok(())
    }

    fn condition(&mut self, end: &str) -> Result<(), Refused> {
        for _ in 0..MAX_TESTS {
            let mut token = self.token(end)?;
            if token == Token::Name("not") {
                token = self.token(end)?;
            }
            self.operand(end, token)?;
            if matches!(self.peek(end)?, Token::Sign("==" | "!=")) {
                self.token(end)?;
                let other = self.token(end)?;
                self.operand(end, other)?;
            }
            match self.token(end)? {
                Token::End => return Ok(()),
                Token::Name("and" | "or") => {}
                _ => return Err(self.refuse("Expected `and`, `or` or the end of the condition.")),
            }
        }
        Err(self.refuse(format!("A condition has at most {MAX_TESTS} tests.")))
    }

    fn operand(&mut self, end: &str, token: Token<'_>) -> Result<(), Refused> {
        match token {
            Token::String => Ok(()),
            Token::Name(TOOLS) => {
                self.outline.tools = true;
                Ok(())
            }
            Token::Name(name) => self.variable(end, name).map(drop),
            _ => Err(self.refuse("Expected a variable or a string.")),
        }
    }
}

/// A name as it is repeated to its author: not at length.
fn shown(name: &str) -> String {
    name.chars().take(MAX_NAME_BYTES).collect()
}
