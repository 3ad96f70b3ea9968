mod rules;
mod world;
