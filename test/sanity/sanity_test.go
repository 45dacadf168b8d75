package sanity_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/google/uuid"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"
	"k8s.io/mount-utils"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/loopdisk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const zone = "fi-hel1"

// accessTypeVariable tells a run of this test's own program which kind of volume to use.
const accessTypeVariable = "SANITY_ACCESS_TYPE"

// filesystemVariable tells a run of this test's own program which filesystem volumes shall have.
const filesystemVariable = "SANITY_FILESYSTEM"

// faultsVariable tells a run of this test's own program to let requests to the API fail at random.
const faultsVariable = "SANITY_FAULTS"

// TestSanity runs csi-test with volumes that hold a filesystem. Without root it runs what needs no disks.
func TestSanity(t *testing.T) {
	accessType := os.Getenv(accessTypeVariable)
	if accessType == "" {
		accessType = "mount"
	}
	reason := noDisks()
	bed := newBed(t, reason == "")
	heal := func() {}
	if os.Getenv(faultsVariable) != "" {
		heal = bed.injectFaults()
	}
	bed.runSpecs(t, accessType, reason == "")
	heal()
	bed.checkNothingLeft(t)
	t.Run("node service", func(t *testing.T) {
		if reason != "" {
			t.Skipf("the specs of the node service were not run: %s", reason)
		}
	})
}

// TestSanityBlock runs csi-test with raw block volumes, in a process of its own, as a process can run specs once.
func TestSanityBlock(t *testing.T) {
	if reason := noDisks(); reason != "" {
		t.Skipf("raw block volumes were not tested: %s", reason)
	}
	if os.Getenv(accessTypeVariable) != "" {
		t.Skip("this is that process")
	}
	runApart(t, accessTypeVariable+"=block")
}

// TestSanityFilesystems runs csi-test with the filesystems that are not the default one.
func TestSanityFilesystems(t *testing.T) {
	if reason := noDisks(); reason != "" {
		t.Skipf("filesystems were not tested: %s", reason)
	}
	if os.Getenv(accessTypeVariable) != "" || os.Getenv(filesystemVariable) != "" || os.Getenv(faultsVariable) != "" {
		t.Skip("this is that process")
	}
	for _, filesystem := range []string{"xfs", "btrfs"} {
		t.Run(filesystem, func(t *testing.T) {
			if _, err := exec.LookPath("mkfs." + filesystem); err != nil {
				t.Skip(err)
			}
			runApart(t, filesystemVariable+"="+filesystem)
		})
	}
}

// withFilesystem makes csi-test, which asks for none, ask for a filesystem.
func withFilesystem(name string) grpc.DialOption {
	ask := func(capabilities ...*csi.VolumeCapability) {
		for _, capability := range capabilities {
			if mount := capability.GetMount(); mount != nil {
				mount.FsType = name
			}
		}
	}
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		switch r := req.(type) {
		case interface{ GetVolumeCapability() *csi.VolumeCapability }:
			ask(r.GetVolumeCapability())
		case interface {
			GetVolumeCapabilities() []*csi.VolumeCapability
		}:
			ask(r.GetVolumeCapabilities()...)
		}
		return invoke(ctx, method, req, reply, conn, options...)
	})
}

// TestSanityWithFaults runs csi-test while one request in a hundred fails before its effect, and one after.
func TestSanityWithFaults(t *testing.T) {
	if os.Getenv(accessTypeVariable) != "" || os.Getenv(faultsVariable) != "" {
		t.Skip("this is that process")
	}
	runApart(t, faultsVariable+"=1")
}

// runApart runs TestSanity in a process of its own.
func runApart(t *testing.T, variable string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "-test.run=^TestSanity$", "-test.count=1")
	command.Env = append(os.Environ(), variable)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
}

// injectFaults makes requests fail until the function that it returns is called.
func (b *bed) injectFaults() (remove func()) {
	var removes []func()
	for _, fault := range []simulator.Fault{
		{Rate: 0.01, Status: 500}, {Rate: 0.01, Status: 502, AfterEffect: true},
		{Rate: 0.005, Drop: true}, {Rate: 0.005, Drop: true, AfterEffect: true},
	} {
		removes = append(removes, b.sim.Inject(fault))
	}
	return func() {
		for _, remove := range removes {
			remove()
		}
	}
}

// noDisks tells why there can be no disks here, "" if there can.
func noDisks() string {
	if os.Geteuid() != 0 {
		return "making loop devices and mounting need root"
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return "no loop devices: " + err.Error()
	}
	for _, program := range []string{"blkid", "mkfs.ext4", "e2fsck", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			return err.Error()
		}
	}
	return ""
}

// bed is a server of a simulated UpCloud with the driver on it.
type bed struct {
	sim      *simulatortest.Server
	dir      string
	endpoint string
	server   string
	stop     func()
}

func newBed(t *testing.T, disks bool) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "sanity")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	b := &bed{dir: dir, endpoint: "unix://" + filepath.Join(dir, "csi.sock")}
	var config simulator.Config
	if disks {
		if config.Disks, err = loopdisk.New(filepath.Join(dir, "sim")); err != nil {
			t.Fatal(err)
		}
	}
	b.sim = simulatortest.Start(t, config)
	b.server = b.sim.CreateServer(t, "worker-1", zone)
	b.serve(t)
	return b
}

func (b *bed) serve(t *testing.T) {
	t.Helper()
	account, err := cloud.New(cloud.Config{Token: b.sim.Token, BaseURL: b.sim.URL, ClusterID: "sanity"})
	if err != nil {
		t.Fatal(err)
	}
	disks, err := disk.New(disk.Config{
		DeviceDir:     filepath.Join(b.dir, "sim", "servers", b.server, "by-id"),
		DeviceTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	self, err := driver.Identify(context.Background(), driver.ModeAll, b.sim.Metadata(t, b.server), "", "")
	if err != nil {
		t.Fatal(err)
	}
	quiet := logr.Discard()
	program, err := driver.New(driver.Config{
		Endpoint: b.endpoint, Mode: driver.ModeAll, Version: "sanity", Zone: self.Zone, NodeID: self.NodeID,
		Cloud: account, Disk: disks, Logger: &quiet,
		MaxVolumes: 15, // all that a server with one disk of its own takes, so that the spec of the limit is exact
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- program.Run(ctx) }()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-served; err != nil {
			t.Errorf("the driver ended with %v", err)
		}
		account.Close()
	}
	t.Cleanup(b.stop)
}

// ids makes IDs of the form that ours have, of nothing that exists.
type ids struct{}

func (ids) GenerateUniqueValidVolumeID() string   { return "01" + uuid.NewString()[2:] }
func (ids) GenerateInvalidVolumeID() string       { return "not-a-volume" }
func (ids) GenerateUniqueValidNodeID() string     { return "00" + uuid.NewString()[2:] }
func (ids) GenerateInvalidNodeID() string         { return "not-a-node" }
func (ids) GenerateUniqueValidSnapshotID() string { return "01" + uuid.NewString()[2:] }
func (ids) GenerateInvalidSnapshotID() string     { return "not-a-snapshot" }

func (b *bed) runSpecs(t *testing.T, accessType string, node bool) {
	t.Helper()
	config := sanity.NewTestConfig()
	config.Address = b.endpoint
	config.TargetPath = filepath.Join(b.dir, "target")
	config.StagingPath = filepath.Join(b.dir, "staging")
	config.TestVolumeSize = 1 << 30
	config.TestVolumeParameters = map[string]string{"tier": "standard", "encryption": "data-at-rest"}
	config.TestVolumeAccessType = accessType
	config.TestVolumeMutableParameters = map[string]string{
		"backupInterval": "daily", "backupTime": "0430", "backupRetention": "7", "labels": "team=storage",
	}
	config.TestNodeVolumeAttachLimit = true
	config.IDGen = ids{}
	if filesystem := os.Getenv(filesystemVariable); filesystem != "" {
		config.DialOptions = append(config.DialOptions, withFilesystem(filesystem))
		config.ControllerDialOptions = append(config.ControllerDialOptions, withFilesystem(filesystem))
	}

	suite, reporter := ginkgo.GinkgoConfiguration()
	if !node {
		suite.SkipStrings = append(suite.SkipStrings, "Node Service")
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	specs := sanity.GinkgoTest(&config)
	ginkgo.RunSpecs(t, "CSI sanity, "+accessType+" volumes", suite, reporter)
	specs.Finalize()
}

// checkNothingLeft looks for volumes and mounts that outlived the specs.
func (b *bed) checkNothingLeft(t *testing.T) {
	t.Helper()
	var answer struct {
		Storages struct {
			Storage []struct{ UUID, Title string }
		}
	}
	b.sim.Do(t, "GET", "/storage?label=csi-name", "", &answer)
	for _, storage := range answer.Storages.Storage {
		t.Errorf("volume %s (%s) is left in the account", storage.UUID, storage.Title)
	}
	mounts, err := mount.ParseMountInfo("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if !strings.HasPrefix(mounts[i].MountPoint, b.dir+"/") {
			continue
		}
		t.Errorf("%s is still mounted", mounts[i].MountPoint)
		if out, err := exec.Command("umount", mounts[i].MountPoint).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}
