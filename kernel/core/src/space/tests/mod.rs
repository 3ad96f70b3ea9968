mod broken;
mod exhaustion;
mod interleaved;
mod model;
mod ports;
mod rules;
mod world;
