//! Inputs that cannot work, given to the real program: what it says, how it
//! ends, and that it leaves the output folder as it was.

mod checkpoint_folders;
mod output_folders;
mod recipes;
mod scene;
mod side_files;
mod tensors;
mod values;
mod weight_files;
