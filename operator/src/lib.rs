//! (see the room's description in docs)
