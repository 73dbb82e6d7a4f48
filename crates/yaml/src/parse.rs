//! Text to [`Node`]s, within bounds: no document makes this run out of stack or memory.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::{
    Key, Node, Problem, Span, Value,
    syntax::{explain, line_of, problem},
};

/// The largest text that is parsed, in bytes.
pub const MAX_BYTES: usize = 8 << 20;

/// The deepest that lists and mappings may lie in each other.
pub const MAX_DEPTH: usize = 64;

/// The most values that a document may have after its aliases are expanded.
pub const MAX_NODES: usize = 1_000_000;

/// The most bytes of text that anchors and aliases may repeat.
const MAX_REPEATED_BYTES: usize = 2 * MAX_BYTES;

/// A mapping with no more keys than this is searched key by key, a larger one by hash.
const FEW_KEYS: usize = 16;

/// What could be read of a text.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The document, without the entries that have problems; nothing if its structure cannot be made out.
    pub root: Option<Node>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// Parses a document that has nothing wrong with it.
///
/// # Errors
/// Every problem of syntax: at most one that makes the structure unclear, and any number of duplicate keys and such.
pub fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    match parse_with_recovery(text) {
        Parsed { root: Some(root), problems } if problems.is_empty() => Ok(root),
        parsed => Err(parsed.problems),
    }
}

/// Parses as much of a document as can be understood, so that its other problems can be found as well.
pub fn parse_with_recovery(text: &str) -> Parsed {
    if text.len() > MAX_BYTES {
        let message = format!("the text has {} bytes; the limit is {MAX_BYTES}", text.len());
        return Parsed { root: None, problems: vec![Problem { span: None, message, help: None }] };
    }
    // The parser counts from behind the mark.
    let (body, base) = text.strip_prefix('\u{feff}').map_or((text, 0), |body| (body, '\u{feff}'.len_utf8()));
    let mut builder = Builder::new(body, base);
    let root = match builder.run() {
        Ok(root) => root,
        Err(problem) => {
            builder.problems.push(problem);
            None
        }
    };
    Parsed { root, problems: builder.problems }
}

/// Turns events into nodes with a stack of its own: depth is data here, not recursion.
struct Builder<'text> {
    text: &'text str,
    /// What stands before `text` in the source, in bytes.
    base: usize,
    /// Offsets of the characters in bytes, unless they are the same.
    offsets: Option<Vec<usize>>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    /// Bytes of text that anchors and aliases repeated.
    repeated_bytes: usize,
    expanded: bool,
    problems: Vec<Problem>,
}

/// A value that aliases may repeat.
struct Anchored {
    node: Node,
    nodes: usize,
    /// Of its texts and keys.
    bytes: usize,
    depth: usize,
}

/// A list or mapping whose end has not come.
struct Open {
    span: Span,
    anchor: usize,
    /// Nodes counted before it.
    nodes_before: usize,
    /// Levels below it.
    depth: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<(Key, Node)>,
        /// The places of `entries` by name, once these are more than a few.
        index: HashMap<String, usize>,
        key: Option<KeyState>,
    },
}

/// A key whose value has not come.
enum KeyState {
    Good(Key),
    /// Reported; its value is read and dropped.
    Bad,
}

impl<'text> Builder<'text> {
    fn new(text: &'text str, base: usize) -> Self {
        let offsets = (!text.is_ascii()).then(|| text.char_indices().map(|(offset, _)| offset).collect());
        Self {
            text,
            base,
            offsets,
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            repeated_bytes: 0,
            expanded: false,
            problems: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<Option<Node>, Problem> {
        let mut root = None;
        for event in Parser::new_from_str(self.text) {
            let (event, span) = event
                .map_err(|error| explain(self.text, self.base, self.byte(error.marker().index()), error.info()))?;
            let span = self.span(span);
            let finished = match event {
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(problem(span, "a second document starts here", "a file holds one: remove the `---`"));
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.refuse_tag(tag.is_some(), span);
                    let quoted = style != ScalarStyle::Plain;
                    // A block's text takes the empty lines behind it along.
                    let span = Span { start: span.start, end: span.start + self.slice(span).trim_end().len() };
                    let node = Node { span, value: Value::Scalar { text: text.into_owned(), quoted } };
                    self.count(1, span)?;
                    self.remember(anchor, &node, 1, 0)?;
                    self.place(node, 0)?
                }
                Event::SequenceStart(anchor, tag) => {
                    self.refuse_tag(tag.is_some(), span);
                    self.open(span, anchor, Content::Sequence(Vec::new()))?;
                    None
                }
                Event::MappingStart(anchor, tag) => {
                    self.refuse_tag(tag.is_some(), span);
                    let content = Content::Mapping { entries: Vec::new(), index: HashMap::new(), key: None };
                    self.open(span, anchor, content)?;
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(span)?,
                Event::Alias(anchor) => self.expand(anchor, span)?,
                _ => None,
            };
            root = finished.or(root);
        }
        if root.is_none() {
            let start = Span { start: self.base, end: self.base };
            return Err(problem(start, "the document is empty", "write it, or name another"));
        }
        Ok(root)
    }

    fn open(&mut self, span: Span, anchor: usize, content: Content) -> Result<(), Problem> {
        self.count(1, span)?;
        self.check_depth(self.open.len() + 1, span)?;
        self.open.push(Open { span, anchor, nodes_before: self.nodes - 1, depth: 0, content });
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<Option<Node>, Problem> {
        let Some(open) = self.open.pop() else { return Ok(None) };
        let (value, first, last) = match open.content {
            Content::Sequence(items) => {
                let bounds = items.first().map(|item| item.span.start).zip(items.last().map(|item| item.span.end));
                (Value::Sequence(items), bounds.map(|bounds| bounds.0), bounds.map(|bounds| bounds.1))
            }
            Content::Mapping { entries, .. } => {
                let first = entries.first().map(|(key, _)| key.span.start);
                let last = entries.last().map(|(_, value)| value.span.end);
                (Value::Mapping(entries), first, last)
            }
        };
        // In brackets the end is a character; in a block it is wherever the next thing starts.
        let closed = matches!(self.slice(end).chars().next(), Some(']' | '}'));
        let start =
            if closed { open.span.start } else { first.map_or(open.span.start, |first| first.min(open.span.start)) };
        let end = if closed { end.start + 1 } else { last.unwrap_or(open.span.end) };
        let node = Node { span: Span { start, end: end.max(start) }, value };
        self.remember(open.anchor, &node, self.nodes - open.nodes_before, open.depth + 1)?;
        self.place(node, open.depth + 1)
    }

    /// Puts a finished value of `depth` levels where it belongs. The root belongs nowhere, and is given back.
    fn place(&mut self, node: Node, depth: usize) -> Result<Option<Node>, Problem> {
        let Some(parent) = self.open.last_mut() else { return Ok(Some(node)) };
        parent.depth = parent.depth.max(depth);
        match &mut parent.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { entries, index, key } => match key.take() {
                Some(KeyState::Good(name)) => entries.push((name, node)),
                Some(KeyState::Bad) => {}
                None => {
                    let read = read_key(node).and_then(|name| match first_use(entries, index, &name.name) {
                        None => Ok(name),
                        Some(first) => {
                            let line = line_of(self.text, first.start - self.base);
                            let help = format!("it is first given on line {line}: keep one of the two");
                            Err(problem(name.span, format!("duplicate key `{}`", name.name), help))
                        }
                    });
                    *key = Some(match read {
                        Ok(name) => KeyState::Good(name),
                        Err(problem) => {
                            self.problems.push(problem);
                            KeyState::Bad
                        }
                    });
                }
            },
        }
        Ok(None)
    }

    /// Repeats an anchored value.
    fn expand(&mut self, anchor: usize, span: Span) -> Result<Option<Node>, Problem> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(problem(
                span,
                "an alias stands inside the value that it repeats",
                "a value cannot hold itself",
            ));
        };
        let (nodes, bytes, depth) = (anchored.nodes, anchored.bytes, anchored.depth);
        self.expanded = true;
        // Before the copy is made: that is what a bomb is about.
        self.count(nodes, span)?;
        self.repeat(bytes, span)?;
        self.check_depth(self.open.len() + depth, span)?;
        let Some(anchored) = self.anchors.get(&anchor) else { return Ok(None) };
        let node = Node { span, value: anchored.node.value.clone() };
        self.place(node, depth)
    }

    fn remember(&mut self, anchor: usize, node: &Node, nodes: usize, depth: usize) -> Result<(), Problem> {
        // Zero stands for no anchor.
        if anchor != 0 {
            let bytes = text_bytes(node);
            self.repeat(bytes, node.span)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, bytes, depth });
        }
        Ok(())
    }

    fn repeat(&mut self, bytes: usize, span: Span) -> Result<(), Problem> {
        self.repeated_bytes = self.repeated_bytes.saturating_add(bytes);
        if self.repeated_bytes <= MAX_REPEATED_BYTES {
            return Ok(());
        }
        let message = format!("the aliases (`*name`) repeat more than {MAX_REPEATED_BYTES} bytes of text");
        Err(problem(span, message, "repeat less, or shorter texts"))
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        Err(match self.expanded {
            true => problem(
                span,
                format!("the aliases (`*name`) blow this document up to more than {MAX_NODES} values"),
                "repeat less: aliases of aliases multiply",
            ),
            false => problem(
                span,
                format!("the document has more than {MAX_NODES} values"),
                "keep data in files of their own, and name them",
            ),
        })
    }

    fn check_depth(&self, depth: usize, span: Span) -> Result<(), Problem> {
        if depth <= MAX_DEPTH {
            return Ok(());
        }
        Err(problem(
            span,
            format!("more than {MAX_DEPTH} lists and mappings lie in each other here"),
            "nest less deeply",
        ))
    }

    fn refuse_tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            let help = "remove the tag: types come from the fields; quote a value that is text";
            self.problems.push(problem(span, "tags (`!name`) are not supported", help));
        }
    }

    /// A place in characters as one in bytes of the source.
    fn span(&self, span: saphyr_parser::Span) -> Span {
        Span { start: self.base + self.byte(span.start.index()), end: self.base + self.byte(span.end.index()) }
    }

    fn byte(&self, character: usize) -> usize {
        match &self.offsets {
            Some(offsets) => offsets.get(character).copied().unwrap_or(self.text.len()),
            None => character.min(self.text.len()),
        }
    }

    fn slice(&self, span: Span) -> &'text str {
        self.text.get(span.start - self.base..span.end - self.base).unwrap_or_default()
    }
}

/// The bytes of all texts and keys of a value.
fn text_bytes(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { text, .. } => text.len(),
        Value::Sequence(items) => items.iter().map(text_bytes).sum(),
        Value::Mapping(entries) => entries.iter().map(|(key, value)| key.name.len() + text_bytes(value)).sum(),
    }
}

/// The place of the key called `name`, if `entries` have one. `index` holds the names of the first few entries, or none.
fn first_use(entries: &[(Key, Node)], index: &mut HashMap<String, usize>, name: &str) -> Option<Span> {
    let place = if entries.len() <= FEW_KEYS {
        entries.iter().position(|(key, _)| key.name == name)
    } else {
        // Keys are unique, so the index has as many names as it has seen entries.
        index.extend((index.len()..entries.len()).map(|place| (entries[place].0.name.clone(), place)));
        index.get(name).copied()
    };
    place.map(|place| entries[place].0.span)
}

fn read_key(node: Node) -> Result<Key, Problem> {
    let span = node.span;
    match node.value {
        Value::Scalar { text, quoted: false } if text == "<<" => {
            let help = "write the fields out, or put the shared value into `params`";
            Err(problem(span, "merge keys (`<<`) are not supported", help))
        }
        Value::Scalar { text, .. } if text.is_empty() => {
            Err(problem(span, "a key is empty", "write a name before the `:`"))
        }
        Value::Scalar { text, .. } => Ok(Key { span, name: text }),
        Value::Sequence(_) | Value::Mapping(_) => {
            Err(problem(span, "a key is a list or a mapping", "quote a text that starts with `{` or `[`"))
        }
    }
}
