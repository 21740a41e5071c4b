"""From photographs of one's own to an OVSeg that knows them, with one command."""
