//! Mappings and where they came from.

use core::fmt::{self, Write};

use kcore::inspect::{NodeView, PageView};
use kcore::machine::{Machine, NodeRef, SpaceRef};

use crate::commands::spaces::{Size, rights};
use crate::menu::Done;
use crate::session::Session;

/// Depth that is shown by indentation.
const INDENT_MAX: usize = 24;

impl<M: Machine + 'static> Session<'_, '_, M> {
    pub(super) fn tree_of_page(&mut self) -> Done {
        let kind = self.ask_key("a physical page, or one of a space", "ps")?;
        let (node, physical) = if kind == 's' {
            let space = self.ask_space()?;
            let address = self.ask_number("address", 0)?;
            let page = self.k.spaces.page_at(space, address);
            let Some((page, node)) = page.and_then(|page| Some((page, page.node?))) else {
                return self.refuse(format_args!("no mapping of a user is there"));
            };
            (Some(self.root_of(node)), page.frame.wrapping_add(address & ((1 << page.size_log2) - 1)))
        } else {
            let address = self.ask_number("physical address", 0)?;
            let sigma0 = self.k.spaces.sigma0_space();
            let page = sigma0.and_then(|space| self.k.spaces.page_at(space, address));
            (page.and_then(|page| page.node), address)
        };
        match node {
            Some(root) => self.tree(root, Some(physical))?,
            None => writeln!(self.out, "nobody has it: sigma0 has not been asked for it")?,
        }
        Ok(None)
    }

    pub(super) fn all_trees(&mut self) -> Done {
        let Some(sigma0) = self.k.spaces.sigma0_space() else {
            return self.refuse(format_args!("there is no sigma0"));
        };
        let mut from = 0;
        // Each page is looked up anew, as a tree is printed in between.
        while let Some(page) = self.first_page(sigma0, from) {
            if let Some(root) = page.node {
                self.tree(root, None)?;
            }
            let Some(next) = page.address.checked_add(1 << page.size_log2) else { break };
            from = next;
        }
        Ok(None)
    }

    fn first_page(&self, space: SpaceRef, from: u64) -> Option<PageView> {
        let mut found = None;
        self.k.spaces.pages(space, from, &mut |page| {
            found = Some(page).filter(|page| page.address >= from);
            found.is_none()
        });
        found
    }

    pub(super) fn mappings_of_space(&mut self) -> Done {
        let space = self.ask_space()?;
        let mut from = 0;
        while let Some(page) = self.first_page(space, from) {
            let parent = page.node.and_then(|node| self.k.spaces.node_view(node)).and_then(|node| node.parent);
            let origin = parent.and_then(|parent| self.k.spaces.node_view(parent));
            let mut text = arrayvec::ArrayString::<192>::new();
            let _ =
                write!(text, "{:12x} {:>4} {} at {:x}", page.address, Size(page.size_log2), rights(&page), page.frame);
            let _ = match origin.map(|origin| (origin.space, origin.page)) {
                Some((Some(space), at)) => write!(text, " from {} at {at:x}", self.space(space)),
                Some((None, _)) => write!(text, " BROKEN: its origin is nobody's"),
                None if page.is_kernel_page => write!(text, " the kernel's"),
                None => write!(text, " from nobody"),
            };
            writeln!(self.out, "{text}")?;
            let Some(next) = page.address.checked_add(1 << page.size_log2) else { break };
            from = next;
        }
        Ok(None)
    }

    /// The root of the tree of a node, as far as parents lead.
    fn root_of(&self, node: NodeRef) -> NodeRef {
        let mut at = node;
        for _ in 0..self.k.spaces.nodes_max() {
            match self.k.spaces.node_view(at).and_then(|view| view.parent) {
                Some(parent) if parent != at => at = parent,
                _ => break,
            }
        }
        at
    }

    /// Prints a tree, parents before children, or the part of it that has a physical address. Links are followed as often as
    /// there are nodes at most.
    fn tree(&mut self, root: NodeRef, physical: Option<u64>) -> fmt::Result {
        let (mut at, mut depth) = (root, 0);
        for _ in 0..=self.k.spaces.nodes_max() {
            let view = match self.elsewhere(at, physical) {
                Some(view) => NodeView { child: None, ..view },
                None => match self.node(at, depth)? {
                    Some(view) => view,
                    None => return Ok(()),
                },
            };
            if let Some(child) = view.child {
                (at, depth) = (child, depth + 1);
                continue;
            }
            // The next one beside it, or beside one above it.
            let mut here = (at, view);
            loop {
                if here.0 == root || depth == 0 {
                    return Ok(());
                }
                if let Some(next) = here.1.next {
                    at = next;
                    break;
                }
                let parent = here.1.parent.and_then(|parent| Some((parent, self.k.spaces.node_view(parent)?)));
                let Some(parent) = parent else {
                    return writeln!(self.out, "BROKEN: a node leads to no parent");
                };
                (here, depth) = (parent, depth - 1);
            }
        }
        writeln!(self.out, "BROKEN: there are more links than nodes")
    }

    /// The node, if its page is there and does not have the physical address, so that nothing below has it.
    fn elsewhere(&self, node: NodeRef, physical: Option<u64>) -> Option<NodeView> {
        let view = self.k.spaces.node_view(node)?;
        let page = self.k.spaces.page_at(view.space?, view.page).filter(|page| page.node == Some(node))?;
        (physical?.wrapping_sub(page.frame) >> page.size_log2 != 0).then_some(view)
    }

    /// Prints a node; `None`: there is none.
    fn node(&mut self, node: NodeRef, depth: usize) -> Result<Option<NodeView>, fmt::Error> {
        let indent = depth.min(INDENT_MAX) * 2;
        let view = self.k.spaces.node_view(node);
        let Some((view, space)) = view.and_then(|view| Some((view, view.space?))) else {
            writeln!(self.out, "{:indent$}BROKEN: node {:x} is nobody's", "", node.index())?;
            return Ok(None);
        };
        let page = self.k.spaces.page_at(space, view.page).filter(|page| page.node == Some(node));
        match page {
            Some(page) => {
                let mut blanks = arrayvec::ArrayString::<{ 2 * INDENT_MAX }>::new();
                (0..indent).for_each(|_| blanks.push(' '));
                self.page_line(space, &page, &blanks)?;
            }
            None if view.is_detached => {
                writeln!(self.out, "{:indent$}root of {:x}, which sigma0 does not see", "", view.page)?;
            }
            None => {
                let mut text = arrayvec::ArrayString::<64>::new();
                let _ = write!(text, "{}", self.space(space));
                writeln!(self.out, "{:indent$}BROKEN: {text} at {:x} has no such page", "", view.page)?;
            }
        }
        Ok(Some(view))
    }

    pub(super) fn tree_of_port(&mut self) -> Done {
        let port = self.ask_number("port", 0)?;
        let Ok(port) = u16::try_from(port) else { return self.refuse(format_args!("ports are below 10000")) };
        self.ports(|first, last| (first..=last).contains(&port))
    }

    pub(super) fn all_ports(&mut self) -> Done {
        self.ports(|_, _| true)
    }

    /// Prints the ranges of ports of all spaces that are asked for.
    fn ports(&mut self, is_asked_for: impl Fn(u16, u16) -> bool) -> Done {
        let k = self.k;
        if !k.spaces.has_io_fpages() {
            writeln!(self.out, "all programs reach all ports: there are no I/O fpages in this boot")?;
            return Ok(None);
        }
        for space in k.spaces.inhabited() {
            for (first, last, parent) in k.spaces.port_origins(space) {
                if is_asked_for(first, last) {
                    let mut text = arrayvec::ArrayString::<128>::new();
                    let _ = write!(text, "{}: {first:x} to {last:x}, from {}", self.space(space), self.space(parent));
                    writeln!(self.out, "{text}, but for those that were taken back")?;
                }
            }
        }
        Ok(None)
    }
}
