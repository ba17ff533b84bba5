//! The mirror against a real kernel, each test in a network namespace of its own, with a thread
//! that stands for a worker and the machines on the wire. Not root: they say so and do nothing.

mod frames;
mod host_ways;
mod life;
mod links;
mod neighbours;
mod publication;
mod support;
