"""An institution's part in federations: what it refuses, what it computes, and what its journal must not lose."""
