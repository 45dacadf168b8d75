package driver_test

// scenario is what two copies of the controller do.
type scenario struct {
	name      string
	prepare   func(*stage)
	left      func(*stage) call // of the first copy, whose caller leaves at any moment
	then      func(*stage) []call
	person    func(*stage)      // at any moment when personMay; nil: none
	personMay func(*stage) bool // nil: at any
	want      []string          // what is in the account in the end
	latePuts  bool              // the network may keep a PUT back
	large     bool              // it takes too long with faults
}

// byThePerson is in scenario.want where a person attaches a disk, if there is a moment for it.
const byThePerson = " at a by hand"

var scenarios = []*scenario{
	{name: "attach left, then detached and attached elsewhere", prepare: volume, left: attached("volume", "a"),
		then: then(detached("volume", "a"), attached("volume", "b")), want: []string{"normal volume at b"}},
	{name: "attach left, and repeated", prepare: volume, left: attached("volume", "a"),
		then: then(attached("volume", "a")), want: []string{"normal volume at a"}},
	{name: "detach left, then attached elsewhere", prepare: volumeAtA, left: detached("volume", "a"),
		then: then(detached("volume", "a"), attached("volume", "b")), want: []string{"normal volume at b", "normal their-disk"}},
	{name: "detach left, then attached there again", prepare: volumeAtA, left: detached("volume", "a"),
		then: then(detached("volume", "a"), attached("volume", "a")), want: []string{"normal volume at a", "normal their-disk"}},
	{name: "detach left, and a person uses the freed slot", large: true, prepare: volumeAtA, left: detached("volume", "a"),
		then: then(detached("volume", "a"), attached("volume", "b")), person: theirsToTheFreedSlot, personMay: volumeIsNotAtA,
		want: []string{"normal volume at b", "normal their-disk" + byThePerson}},
	{name: "detach, while a person swaps the disks", large: true, prepare: volumeAtA, left: detached("volume", "a"),
		then: then(detached("volume", "a")), person: swapsByHand, personMay: volumeIsAtA,
		want: []string{"normal volume", "normal their-disk" + byThePerson}},
	{name: "create left, and repeated", prepare: servers, left: made(empty), then: then(made(empty)),
		want: []string{"normal new"}},
	{name: "create left, then created and deleted", prepare: servers, left: made(empty),
		then: then(made(empty), deleted("the volume"))},
	{name: "copy left, and repeated", large: true, latePuts: true, prepare: volume, left: made(ofVolume), then: then(made(ofVolume)),
		want: []string{"normal volume", "normal new"}},
	{name: "copy left, then copied and deleted", large: true, latePuts: true, prepare: volume, left: made(ofVolume),
		then: then(made(ofVolume), deleted("the volume")), want: []string{"normal volume"}},
	{name: "snapshot left, and repeated", latePuts: true, prepare: volume, left: snapped("new"), then: then(snapped("new")),
		want: []string{"normal volume", "backup new"}},
	{name: "snapshot left, then taken and deleted", latePuts: true, prepare: volume, left: snapped("new"),
		then: then(snapped("new"), unsnapped), want: []string{"normal volume"}},
	{name: "snapshot with the title of backups made by hand", large: true, prepare: backups("before the upgrade"),
		left: snapped("before the upgrade"), then: then(snapped("before the upgrade"), unsnapped),
		want: []string{"normal volume", "backup their-backup-1", "backup their-backup-2"}},
	{name: "deletion of a volume with the ID of a backup", prepare: backups("mine"), left: refusedDeletion("their-backup-1"), then: then(),
		want: []string{"normal volume", "backup their-backup-1", "backup their-backup-2"}},
	{name: "labels left, then others", prepare: volume, left: labelled("one"), then: then(labelled("one"), labelled("two")),
		want: []string{"normal volume of two"}},
}
