//go:build linux

package vm

import (
	"flag"
	"regexp"
	"strings"
	"testing"
	"time"
)

// machineCase takes the machine through something, and leaves it as it was.
type machineCase struct {
	name string
	run  func(*testing.T, *rig)
}

// alone are the cases that look at what udev does, or keep it from doing anything: nothing else may make devices come and go.
var alone = []machineCase{
	{"filesystem ext4", func(t *testing.T, r *rig) { testFilesystem(t, r, "ext4") }},
	{"filesystem xfs", func(t *testing.T, r *rig) { testFilesystem(t, r, "xfs") }},
	{"filesystem btrfs", func(t *testing.T, r *rig) { testFilesystem(t, r, "btrfs") }},
	{"SCSI disk", testSCSIDisk},
	{"raw block", testRawBlock},
	{"stale link", testStaleLink},
	{"swapped links", testSwappedLinks},
	{"late disk", testLateDisk},
	{"kill", testKill},
	{"pulled", testPulled},
}

// besideTests are those that the tests of pkg/disk run beside: they wait for disks most of the time, and the machine has two
// processors.
var besideTests = []machineCase{
	{"encryption", testEncryption},
	{"encrypted raw block", testEncryptedBlock},
	{"encryption asked for or not", testEncryptionMismatch},
	{"encryption and kill", testEncryptionKill},
	{"held while it is detached", testHeld},
	{"dead filesystem, read-only target", testDeadAndReadOnly},
	{"limit", testLimit},
}

// TestMachine boots one machine and takes it through all cases, one after the other.
func TestMachine(t *testing.T) {
	r := start(t)
	r.take(t, alone)
	tests := func(*testing.T) {}
	if asked(t, "package disk") {
		tests = r.startDiskPackage(t).await
	}
	r.take(t, besideTests)
	t.Run("package disk", tests)
}

func (r *rig) take(t *testing.T, cases []machineCase) {
	t.Helper()
	for _, c := range cases {
		passed := t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			c.run(t, r)
			t.Logf("took %s", time.Since(began).Round(100*time.Millisecond))
		})
		if !passed {
			t.Fatal("the machine is not as it was: the other cases are left out")
		}
	}
}

// asked tells whether the case is one of those that the flag -run lets run.
func asked(t *testing.T, name string) bool {
	t.Helper()
	_, cases, some := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	if !some {
		return true
	}
	matches, err := regexp.MatchString(cases, strings.ReplaceAll(name, " ", "_"))
	if err != nil {
		t.Fatal(err)
	}
	return matches
}

// A volume's whole life, with growth while it is in use.
func testFilesystem(t *testing.T, r *rig, fsType string) {
	v := r.create(t, "data", writer(fsType), nil)
	v.bring(t, "a")
	r.sh(t, "[ -b %s ] && findmnt -n -t %s %s", v.link(), fsType, v.target("a"))
	pattern := r.sh(t, "cd %s && head -c 3000000 /dev/urandom > file && sync -f file && sha256sum file", v.target("a"))
	before := v.bytes(t, v.target("a"))
	v.grow(t, 3, v.target("a"))
	if after := v.bytes(t, v.target("a")); before > gib || after < 5*gib/2 {
		t.Errorf("the filesystem had %d bytes, and has %d after it was grown to 3 GiB", before, after)
	}
	v.takeAway(t, "a")

	v.bring(t, "b")
	if got := r.sh(t, "cd %s && sha256sum file", v.target("b")); got != pattern {
		t.Errorf("the file was %s, is %s", pattern, got)
	}
	v.takeAway(t, "b")
	v.remove(t)
}
