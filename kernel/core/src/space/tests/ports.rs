//! I/O ports: rules in a small language, a naive model, interleaved steps, exhaustion of memory and of room.
//!
//! A script is a list of commands, separated by commas: `map S:P -> D`, `grant S:P -> D`, `unmap S:P`, `flush S:P`, and
//! `release S`. P is `port`, `port/log2` or `all`, port in hexadecimal. What there is afterwards is printed as ranges of open
//! ports, space by space, each with the space that it came from: `root:10-1f<sigma0`.

use kformats::paging::Amd64;
use l4_abi::{IoFpage, MapKind};

use super::world::{NAMES, Parts, UNLIMITED, World, commands};
use crate::lock::Held;
use crate::machine::{NoMemory, SpaceRef};
use crate::mapdb::{MapCursor, Progress, UnmapScope};
use crate::space::{PortTransfer, Rest};
use crate::tests::random::Random;

type PortWorld<'a> = World<'a, Amd64>;

/// Ports of a space with their parents: [`NOBODY`] if closed.
type Parents = Vec<u8>;
const NOBODY: u8 = u8::MAX;
const SIGMA0: u8 = 0;
const PORTS: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Map(PortTransfer),
    Unmap(SpaceRef, IoFpage, UnmapScope),
    Release(SpaceRef),
}

fn space(index: usize) -> SpaceRef {
    SpaceRef::new(index as u32)
}

fn step(world: &PortWorld<'_>, operation: Operation, cursor: &MapCursor, budget: &mut u32) -> Progress {
    let held = &mut Held::nothing();
    match operation {
        Operation::Map(transfer) => world.spaces.map_ports(held, &transfer, cursor, budget),
        Operation::Unmap(space, ports, scope) => world.spaces.unmap_ports(held, space, ports, scope, cursor, budget),
        Operation::Release(space) => world.spaces.release(held, space, cursor, budget),
    }
}

fn run(world: &PortWorld<'_>, operation: Operation) -> Progress {
    let (progress, _) = world.complete(|_, cursor, budget| step(world, operation, cursor, budget));
    progress
}

/// What the spaces have, as the invariants and the bits that processors see have it.
fn parents(world: &PortWorld<'_>, index: usize) -> Parents {
    let mut parents = vec![NOBODY; PORTS];
    for (first, last, parent) in world.spaces.port_ranges(space(index)) {
        for port in first..=last {
            if world.spaces.closed_port(space(index), port, port).is_none() {
                parents[usize::from(port)] = parent.index() as u8;
            }
        }
    }
    parents
}

fn print(world: &PortWorld<'_>) -> String {
    let mut runs = Vec::new();
    for index in (1..NAMES.len()).filter(|index| world.is_alive(*index)) {
        let parents = parents(world, index);
        let mut port = 0;
        while port < PORTS {
            let end = (port..PORTS).find(|end| parents[*end] != parents[port]).unwrap_or(PORTS);
            if parents[port] != NOBODY {
                let (name, from) = (NAMES[index], NAMES[usize::from(parents[port])]);
                runs.push(format!("{name}:{port:x}-{:x}<{from}", end - 1));
            }
            port = end;
        }
    }
    runs.join(", ")
}

fn check_structure(world: &PortWorld<'_>) {
    world.check_structure(Rest::Settled);
}

fn operation(command: &str) -> Operation {
    let place = |text: &str| {
        let (name, ports) = text.split_once(':').expect("a colon behind the space");
        let index = NAMES.iter().position(|known| *known == name).expect("a name");
        let (port, log2) = ports.split_once('/').unwrap_or((ports, "0"));
        let ports = match ports {
            "all" => IoFpage::COMPLETE,
            _ => IoFpage::new(u16::from_str_radix(port, 16).expect("a port"), log2.parse().expect("a size"))
                .expect("aligned"),
        };
        (space(index), ports)
    };
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        [verb @ ("map" | "grant"), from, "->", to] => {
            let ((source, ports), (dest, _)) = (place(from), place(&format!("{to}:all")));
            let kind = if verb == "map" { MapKind::Map } else { MapKind::Grant };
            Operation::Map(PortTransfer { source, dest, ports, kind })
        }
        [verb @ ("unmap" | "flush"), what] => {
            let (space, ports) = place(what);
            let scope = if verb == "unmap" { UnmapScope::Derived } else { UnmapScope::Flush };
            Operation::Unmap(space, ports, scope)
        }
        ["release", name] => Operation::Release(place(&format!("{name}:all")).0),
        _ => panic!("what is `{command}`?"),
    }
}

/// Runs a script with steps of all sizes and compares what there is in the end.
#[track_caller]
fn check(script: &str, expected: &str) {
    for budget in [UNLIMITED, 1, 3] {
        let parts = Parts::<Amd64>::new(128);
        let world = World::new(&parts, budget);
        for command in commands(script) {
            assert_eq!(run(&world, operation(command)), Progress::Done, "{command}");
            check_structure(&world);
        }
        assert_eq!(print(&world), expected, "{script} (budget {budget})");
        world.release_all();
    }
}

#[test]
fn ports_are_mapped_to_where_they_are() {
    check("map sigma0:3f8/3 -> root", "root:3f8-3ff<sigma0");
    check("map sigma0:all -> root, map root:60 -> app", "root:0-ffff<sigma0, app:60-60<root");
    check("map sigma0:0/2 -> root, map root:all -> app", "root:0-3<sigma0, app:0-3<root");
    check("map sigma0:ffff -> root, map sigma0:0 -> root", "root:0-0<sigma0, root:ffff-ffff<sigma0");
    check("map root:all -> app", "");
    check("map sigma0:all -> sigma0, map root:all -> sigma0", "");
    check("map sigma0:10/4 -> root, map root:10/4 -> root", "root:10-1f<sigma0");
}

#[test]
fn holes_of_the_sender_are_not_mapped() {
    check(
        "map sigma0:0/8 -> root, flush root:40/6, flush root:3, map root:0/8 -> app",
        "root:0-2<sigma0, root:4-3f<sigma0, root:80-ff<sigma0, app:0-2<root, app:4-3f<root, app:80-ff<root",
    );
}

#[test]
fn ports_that_are_there_stay_as_they_are() {
    let script = "map sigma0:0/8 -> root, map sigma0:0/8 -> web, map root:10/4 -> app, map web:0/6 -> app";
    let all = "root:0-ff<sigma0, app:0-f<web, app:10-1f<root, app:20-3f<web, web:0-ff<sigma0";
    check(script, all);
    check(&format!("{script}, map root:0/6 -> app"), all);
    check(&format!("{script}, unmap web:all"), "root:0-ff<sigma0, app:10-1f<root, web:0-ff<sigma0");
    check(&format!("{script}, unmap root:all"), "root:0-ff<sigma0, app:0-f<web, app:20-3f<web, web:0-ff<sigma0");
}

#[test]
fn hole_in_a_range_takes_ports_of_another_parent() {
    let script =
        "map sigma0:0/8 -> root, map sigma0:0/8 -> web, map root:0/8 -> app, unmap root:20/5, map web:28/3 -> app";
    check(script, "root:0-ff<sigma0, app:0-1f<root, app:28-2f<web, app:40-ff<root, web:0-ff<sigma0");
    check(
        &format!("{script}, map root:all -> app"),
        "root:0-ff<sigma0, app:0-27<root, app:28-2f<web, app:30-ff<root, web:0-ff<sigma0",
    );
    check(&format!("{script}, unmap root:all"), "root:0-ff<sigma0, app:28-2f<web, web:0-ff<sigma0");
}

#[test]
fn unmap_revokes_what_is_derived() {
    let script = "map sigma0:0/8 -> root, map root:0/6 -> app, map app:0/5 -> web, map web:8/3 -> disk";
    check(
        &format!("{script}, unmap app:8/2"),
        "root:0-ff<sigma0, app:0-3f<root, web:0-7<app, web:c-1f<app, disk:c-f<web",
    );
    check(&format!("{script}, unmap root:all"), "root:0-ff<sigma0");
    check(&format!("{script}, unmap sigma0:all"), "");
    check(&format!("{script}, unmap disk:all"), "root:0-ff<sigma0, app:0-3f<root, web:0-1f<app, disk:8-f<web");
}

#[test]
fn flush_revokes_own_ports_too() {
    let script = "map sigma0:0/8 -> root, map root:0/6 -> app, map app:0/5 -> web, map root:40/6 -> web";
    check(
        &format!("{script}, flush app:8/3"),
        "root:0-ff<sigma0, app:0-7<root, app:10-3f<root, web:0-7<app, web:10-1f<app, web:40-7f<root",
    );
    check(&format!("{script}, flush root:all"), "");
    check(&format!("{script}, flush sigma0:all"), "");
    check(&format!("{script}, flush web:all"), "root:0-ff<sigma0, app:0-3f<root");
}

/// A chain through spaces in both orders of the list.
#[test]
fn descendants_of_any_degree_go() {
    let up = "map sigma0:0/4 -> root, map root:0/4 -> app, map app:0/4 -> web, map web:0/4 -> disk";
    let down = "map sigma0:0/4 -> disk, map disk:0/4 -> web, map web:0/4 -> app, map app:0/4 -> root";
    check(&format!("{up}, flush root:4/2"), &{
        let runs = |name, from| format!("{name}:0-3<{from}, {name}:8-f<{from}");
        [runs("root", "sigma0"), runs("app", "root"), runs("web", "app"), runs("disk", "web")].join(", ")
    });
    check(&format!("{down}, flush disk:all"), "");
    check(&format!("{down}, unmap web:0"), "root:1-f<app, app:1-f<web, web:0-f<disk, disk:0-f<sigma0");
    // One port in one direction, another in the other.
    check(
        "map sigma0:0 -> root, map root:0 -> app, map sigma0:1 -> app, map app:1 -> root, flush app:all",
        "root:0-0<sigma0",
    );
}

#[test]
fn grant_moves_ports() {
    let script = "map sigma0:0/8 -> root, map root:0/6 -> app";
    check(
        &format!("{script}, grant app:10/4 -> web"),
        "root:0-ff<sigma0, app:0-f<root, app:20-3f<root, web:10-1f<root",
    );
    check(&format!("{script}, grant app:all -> web"), "root:0-ff<sigma0, web:0-3f<root");
    check(&format!("{script}, grant app:all -> app"), "root:0-ff<sigma0, app:0-3f<root");
    check(&format!("{script}, grant app:all -> web, unmap root:20/5"), "root:0-ff<sigma0, web:0-1f<root");
    check("grant sigma0:4/2 -> root, map sigma0:4/2 -> app", "root:4-7<sigma0, app:4-7<sigma0");
    check(&format!("{script}, grant app:all -> sigma0"), "root:0-ff<sigma0, app:0-3f<root");
}

#[test]
fn grant_keeps_what_is_derived() {
    let script = "map sigma0:0/8 -> root, map root:0/6 -> app, map app:8/3 -> web, map web:8 -> root";
    check(
        &format!("{script}, grant app:c/2 -> disk"),
        "root:0-ff<sigma0, app:0-b<root, app:10-3f<root, web:8-b<app, web:c-f<disk, disk:c-f<root",
    );
    check(&format!("{script}, grant app:0/4 -> disk, flush disk:0/4"), "root:0-ff<sigma0, app:10-3f<root");
}

#[test]
fn grant_to_who_has_the_ports() {
    let script = "map sigma0:0/4 -> root, map root:0/4 -> app, map app:0/2 -> web";
    // Back to where they came from: what was derived is kept.
    check(&format!("{script}, grant app:0/3 -> root"), "root:0-f<sigma0, app:8-f<root, web:0-3<root");
    // To whom they were mapped.
    check(&format!("{script}, grant app:0/3 -> web"), "root:0-f<sigma0, app:8-f<root, web:0-7<root");
    // To a sibling.
    check(
        &format!("{script}, map root:0/1 -> disk, grant app:0/3 -> disk"),
        "root:0-f<sigma0, app:8-f<root, web:0-3<disk, disk:0-7<root",
    );
    // To somebody who has them from elsewhere, and who had given them to others.
    check(
        &format!("{script}, map sigma0:0/1 -> disk, map disk:1 -> web, map disk:0 -> root, grant app:0/3 -> disk"),
        "root:0-f<sigma0, app:8-f<root, web:0-3<disk, disk:0-7<root",
    );
    // To an ancestor further up, which has them from elsewhere: it takes them from everybody.
    check(&format!("{script}, grant web:0/2 -> root"), "root:4-f<sigma0, app:4-f<root");
}

#[test]
fn release_takes_ports_along() {
    let script = "map sigma0:0/8 -> root, map root:0/6 -> app, map app:0/5 -> web, map sigma0:20/4 -> web";
    check(&format!("{script}, release app"), "root:0-ff<sigma0, web:20-2f<sigma0");
    check(&format!("{script}, release root"), "web:20-2f<sigma0");
    check(&format!("{script}, release sigma0"), "");
}

// --- the naive model ---

/// Who has what from whom.
struct Model(Vec<Parents>);

impl Model {
    fn new() -> Self {
        let mut spaces = vec![vec![NOBODY; PORTS]; NAMES.len()];
        spaces[0] = vec![SIGMA0; PORTS];
        Self(spaces)
    }

    fn has(&self, space: usize, port: usize) -> bool {
        self.0[space][port] != NOBODY
    }

    /// Takes a port away, with all that is derived from it.
    fn remove(&mut self, space: usize, port: usize) {
        self.0[space][port] = NOBODY;
        self.remove_derived(space, port);
    }

    fn remove_derived(&mut self, space: usize, port: usize) {
        for other in 1..NAMES.len() {
            if self.0[other][port] == space as u8 {
                self.remove(other, port);
            }
        }
    }

    fn grant(&mut self, from: usize, to: usize, port: usize) {
        let parent = self.0[from][port];
        if parent == NOBODY {
            return;
        }
        let stays = [self.0[to][port] == parent, parent == to as u8].contains(&true);
        if self.has(to, port) && !stays {
            self.remove(to, port);
            if !self.has(from, port) {
                return;
            }
        }
        if !self.has(to, port) {
            self.0[to][port] = parent;
        }
        for other in 1..NAMES.len() {
            if self.0[other][port] == from as u8 {
                self.0[other][port] = to as u8;
            }
        }
        self.0[from][port] = NOBODY;
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Map(PortTransfer { source, dest, ports, kind }) => {
                let (from, to) = (source.index(), dest.index());
                if from == to || to == 0 {
                    return;
                }
                for port in usize::from(ports.port())..=usize::from(ports.last()) {
                    match kind {
                        MapKind::Grant if from != 0 => self.grant(from, to, port),
                        _ if self.has(from, port) && !self.has(to, port) => self.0[to][port] = from as u8,
                        _ => {}
                    }
                }
            }
            Operation::Unmap(space, ports, scope) => {
                for port in usize::from(ports.port())..=usize::from(ports.last()) {
                    match scope {
                        UnmapScope::Flush if space.index() != 0 => self.remove(space.index(), port),
                        _ => self.remove_derived(space.index(), port),
                    }
                }
            }
            Operation::Release(_) => unreachable!("the spaces of the model stay"),
        }
    }
}

/// Ports at ends of words and of all, in ranges of all sizes but mostly small.
fn random_ports(random: &mut Random) -> IoFpage {
    let log2 = random.pick([0, 0, 0, 1, 1, 2, 3, 4, 6, 7]);
    let log2 = if random.below(40) == 0 { 16 - random.below(3) as u32 } else { log2 };
    let port = random.pick([0, 0x38, 0x40, 0x60, 0x7F, 0xFF8, 0xFFF8, 0x7FC0]) + random.below(24);
    IoFpage::new((port.min(0xFFFF) >> log2 << log2) as u16, log2).expect("aligned")
}

fn random_operation(random: &mut Random) -> Operation {
    let ports = random_ports(random);
    if random.below(4) == 0 {
        let scope = random.pick([UnmapScope::Derived, UnmapScope::Flush]);
        return Operation::Unmap(space(random.below(5) as usize), ports, scope);
    }
    let kind = random.pick([MapKind::Map, MapKind::Map, MapKind::Grant]);
    let (source, dest) = (space(random.below(5) as usize), space(random.below(5) as usize));
    Operation::Map(PortTransfer { source, dest, ports, kind })
}

#[test]
fn random_operations_come_to_what_the_model_says() {
    for seed in 1..=4 {
        let parts = Parts::<Amd64>::new(128);
        let (mut model, mut random) = (Model::new(), Random(seed));
        let mut world = World::new(&parts, 1);
        for round in 0..400 {
            let operation = random_operation(&mut random);
            world.budget = random.pick([1, 2, 7, 64, UNLIMITED]);
            assert_eq!(run(&world, operation), Progress::Done);
            model.apply(operation);
            check_structure(&world);
            for (index, name) in NAMES.iter().enumerate().skip(1) {
                let (found, expected) = (parents(&world, index), &model.0[index]);
                let different = (0..PORTS).find(|port| found[*port] != expected[*port]);
                let at = different.map(|port| (port, found[port], expected[port]));
                assert_eq!(at, None, "seed {seed}, round {round}, {name}, {operation:?}");
            }
        }
        world.release_all();
    }
}

// --- many at a time ---

#[test]
fn interleaved_steps_keep_the_invariants() {
    for seed in 1..=6 {
        let parts = Parts::<Amd64>::new(128);
        let world = World::new(&parts, 1);
        let mut random = Random(seed);
        let mut running: Vec<(Operation, MapCursor)> = Vec::new();
        for round in 0..1500 {
            while running.len() < 4 {
                running.push((random_operation(&mut random), MapCursor::default()));
            }
            let index = random.below(running.len() as u64) as usize;
            let (operation, cursor) = &running[index];
            if step(&world, *operation, cursor, &mut (1 + random.below(6) as u32)) != Progress::Again {
                running.swap_remove(index);
            } else if random.below(20) == 0 {
                // Its thread is deleted.
                running.swap_remove(index);
            }
            let broken = world.spaces.check_invariants(Rest::Revoking).err();
            assert_eq!(broken, None, "seed {seed}, round {round}");
        }
        world.release_all();
    }
}

/// Each step touches as much as its budget allows ([`World::bounded_step`]), into however many ranges ports fall.
#[test]
fn steps_are_short_with_many_ranges() {
    for budget in [1, 5, 30] {
        let parts = Parts::<Amd64>::new(128);
        let mut world = World::new(&parts, UNLIMITED);
        commands("map sigma0:all -> root, map root:all -> web, map root:0/4 -> app, map web:10/4 -> app")
            .for_each(|command| assert_eq!(run(&world, operation(command)), Progress::Done));
        for port in (0x20..0x20 + 4 * 120).step_by(4) {
            for script in [format!("map root:{port:x} -> app"), format!("map web:{:x} -> app", port + 2)] {
                assert_eq!(run(&world, operation(&script)), Progress::Done);
            }
        }
        assert!(world.spaces.port_ranges(space(2)).count() > 200, "app has many ranges");
        world.budget = budget;
        let script = "map app:all -> disk, grant root:0/8 -> app, grant web:all -> app, flush web:0/7, map root:all -> web, \
                      grant app:all -> web, unmap root:0/6, flush web:all";
        commands(script).for_each(|command| assert_eq!(run(&world, operation(command)), Progress::Done));
        world.release_all();
    }
}

/// Two spaces that map a port to and fro while it is revoked cannot keep it.
#[test]
fn nobody_runs_ahead_of_a_revocation() {
    let parts = Parts::<Amd64>::new(128);
    let world = World::new(&parts, 1);
    let script = "map sigma0:0/4 -> root, map root:0/4 -> app, map app:0/4 -> web, map web:0/4 -> disk";
    commands(script).for_each(|command| assert_eq!(run(&world, operation(command)), Progress::Done));
    let (unmap, cursor) = (operation("unmap root:0/4"), MapCursor::default());
    let others = ["map disk:0/4 -> app", "map disk:0/4 -> web", "map web:0/4 -> app", "grant web:0/4 -> disk"];
    let others = others.map(|command| (operation(command), MapCursor::default()));
    for steps in 0.. {
        assert!(steps < 1000, "the revocation has no end");
        if step(&world, unmap, &cursor, &mut 1) == Progress::Done {
            break;
        }
        for (operation, cursor) in &others {
            if step(&world, *operation, cursor, &mut 1) != Progress::Again {
                cursor.reset();
            }
        }
    }
    others.iter().for_each(|(other, cursor)| while step(&world, *other, cursor, &mut 1) == Progress::Again {});
    assert_eq!(print(&world), "root:0-f<sigma0");
    world.release_all();
}

/// What a thread began and did not end is ended by the next one.
#[test]
fn revocation_goes_on_without_its_thread() {
    let parts = Parts::<Amd64>::new(128);
    let world = World::new(&parts, 1);
    let script = "map sigma0:all -> root, map root:all -> app, map app:all -> web, map web:0/4 -> disk";
    commands(script).for_each(|command| assert_eq!(run(&world, operation(command)), Progress::Done));
    let cursor = MapCursor::default();
    assert_eq!(step(&world, operation("flush app:all"), &cursor, &mut 2), Progress::Again);
    assert_ne!(print(&world), "root:0-ffff<sigma0", "it takes more steps");
    assert_eq!(run(&world, operation("map root:60 -> disk")), Progress::Done);
    assert_eq!(print(&world), "root:0-ffff<sigma0, disk:60-60<root");
    world.release_all();
}

/// A space that goes while somebody else's revocation stands at it.
#[test]
fn space_may_go_in_the_middle_of_a_revocation() {
    let script = "map sigma0:0/4 -> root, map root:0/4 -> app, map app:0/4 -> web, map web:0/4 -> disk, flush disk:all";
    for steps in 1..40 {
        let parts = Parts::<Amd64>::new(128);
        let world = World::new(&parts, UNLIMITED);
        commands(script).for_each(|command| assert_eq!(run(&world, operation(command)), Progress::Done));
        let (release, unmap) = (MapCursor::default(), MapCursor::default());
        // The release has flushed its ports and is among the tables.
        while step(&world, operation("release disk"), &release, &mut 1) == Progress::Again
            && release.phase.get() != crate::mapdb::Phase::End
        {}
        for _ in 0..steps {
            step(&world, operation("unmap root:all"), &unmap, &mut 1);
        }
        while step(&world, operation("release disk"), &release, &mut UNLIMITED.clone()) == Progress::Again {}
        while step(&world, operation("unmap root:all"), &unmap, &mut 1) == Progress::Again {}
        assert_eq!(print(&world), "root:0-f<sigma0", "{steps} steps");
        world.release_all();
    }
}

// --- no memory, no room ---

#[test]
fn every_failed_allocation_can_be_tried_again() {
    let script = "map sigma0:0/8 -> root, map root:0/6 -> app, grant app:0/4 -> web, map web:8 -> disk, unmap root:all,
        release app, map sigma0:all -> disk";
    for n in 1.. {
        let parts = Parts::<Amd64>::new(128);
        let world = World::new(&parts, UNLIMITED);
        parts.kmem.fail_nth(n);
        for command in commands(script) {
            let before = print(&world);
            let result = run(&world, operation(command));
            check_structure(&world);
            if result == Progress::NoMemory {
                assert_eq!(print(&world), before, "{command} leaves nothing");
                assert_eq!(run(&world, operation(command)), Progress::Done);
            }
        }
        assert_eq!(print(&world), "root:0-ff<sigma0, disk:0-ffff<sigma0", "allocation {n} failed");
        world.release_all();
        if parts.kmem.is_failure_pending() {
            assert!(n > 12, "the script allocates");
            break;
        }
    }
}

#[test]
fn sigma0_gets_its_ports_when_it_asks() {
    let parts = Parts::<Amd64>::new(128);
    let world = World::new(&parts, UNLIMITED);
    let open = || world.spaces.open_ports_of_sigma0(&mut Held::nothing(), space(0));
    assert_eq!(world.spaces.closed_port(space(0), 0x3F8, 0x3FB), Some(0x3F8));
    for n in 1..=3 {
        parts.kmem.fail_nth(n);
        assert_eq!(open(), Err(NoMemory));
        check_structure(&world);
    }
    assert_eq!((open(), open()), (Ok(()), Ok(())));
    check_structure(&world);
    assert_eq!(world.spaces.closed_port(space(0), 0, 0xFFFF), None);
    world.release_all();
}

/// Ports from two parents in turn fill the table of ranges. What has no room is left out, the rest stays right.
#[test]
fn ranges_run_out() {
    let parts = Parts::<Amd64>::new(128);
    let world = World::new(&parts, UNLIMITED);
    for command in ["map sigma0:all -> root", "map sigma0:all -> web"] {
        assert_eq!(run(&world, operation(command)), Progress::Done);
    }
    let map = |port: u16| {
        let source = if port.is_multiple_of(2) { "root" } else { "web" };
        assert_eq!(run(&world, operation(&format!("map {source}:{port:x} -> app"))), Progress::Done);
        world.spaces.closed_port(space(2), port, port).is_none()
    };
    assert_eq!((0..300).take_while(|port| map(*port)).count(), 256);
    check_structure(&world);
    // Without a new range there is room.
    assert_eq!(run(&world, operation("map web:100/2 -> app")), Progress::Done);
    assert_eq!(world.spaces.closed_port(space(2), 0, 0x103), None);
    // In the middle there is none: neither for a range nor for a cut.
    assert_eq!(run(&world, operation("flush app:102")), Progress::Done);
    assert!(!map(0x102));
    assert_eq!(world.spaces.closed_port(space(2), 0, 0x103), Some(0x102));
    // Half of the derived ports get another parent, which takes a range more: they go.
    assert_eq!(run(&world, operation("grant root:0/1 -> disk")), Progress::Done);
    check_structure(&world);
    assert_eq!(parents(&world, 2)[..4], [4, 3, 1, 3], "each had a range of its own");
    assert_eq!(run(&world, operation("grant web:100/1 -> disk")), Progress::Done);
    check_structure(&world);
    assert_eq!(parents(&world, 2)[0xFF..0x104], [3, NOBODY, NOBODY, NOBODY, 3]);
    assert_eq!(parents(&world, 4)[..2], [SIGMA0, SIGMA0]);
    assert_eq!(parents(&world, 4)[0x100..0x104], [SIGMA0, SIGMA0, NOBODY, NOBODY]);
    world.release_all();
}

/// All ports in one item are some steps, and not one per port.
#[test]
fn all_ports_at_once_are_cheap() {
    let parts = Parts::<Amd64>::new(128);
    let world = World::new(&parts, 64);
    let steps = |command: &str| {
        let cursor = MapCursor::default();
        let mut steps = 1;
        while step(&world, operation(command), &cursor, &mut 64) == Progress::Again {
            steps += 1;
        }
        steps
    };
    for command in ["map sigma0:all -> root", "map root:all -> app", "grant app:all -> web", "unmap sigma0:all"] {
        assert!(steps(command) <= 4, "{command}");
    }
    world.release_all();
}
