mod broken;
mod exhaustion;
mod interleaved;
mod model;
mod rules;
mod world;
