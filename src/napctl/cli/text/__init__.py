"""Values as people read them. Pure, but for `progress`, which writes a line while something is measured."""
