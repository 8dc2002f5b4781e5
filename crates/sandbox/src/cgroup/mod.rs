//! Cgroups of version 1, 2 and both at once, behind one interface: a layout found once, a tree for one launcher, a group
//! for one sandbox. What differs between the versions is data in `tables`.

mod group;
mod layout;
mod tables;
mod tree;

pub(crate) use group::Group;
pub(crate) use layout::{Controller, Hierarchy, Layout, NEEDED, own_group};
pub(crate) use tables::{Limits, quota};
pub(crate) use tree::Tree;
