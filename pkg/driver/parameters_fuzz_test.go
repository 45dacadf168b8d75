package driver

import (
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
)

var costOfParameters = boundedtest.Cost{Bytes: 1 << 20, BytesPerByte: 500, CPU: 2 * time.Second, CPUPerByte: 50 * time.Microsecond}

// FuzzParameters reads a parameter of a StorageClass, of a VolumeAttributesClass and of a volume context, a name, a path, a token of
// a list and an answer of the metadata service: each is read or refused, at a cost in proportion to its size.
func FuzzParameters(f *testing.F) {
	for _, key := range classKeys {
		f.Add(key, "x", uint16(1))
		f.Add(key, "a=b,", uint16(300))
	}
	f.Add(parameterMkfsOptions, "-E nodiscard -O ^quota ", uint16(20))
	f.Add(parameterTier, "maxiops", uint16(1))
	f.Add("MKFS options", "YWZ0ZXI6MDE", uint16(1))
	f.Add(sidecarPrefix+"pvc/name", "a\x00", uint16(1000))
	f.Add("x", `{"instance_id":"01a5568f-4766-4ce7-abf5-7d257892a5c5","region":"fi-hel1","network":{"interfaces":[{},[]]}}`, uint16(1))
	f.Fuzz(func(t *testing.T, key, part string, times uint16) {
		if len(part)*int(times) > 2*maxMap {
			return
		}
		value := strings.Repeat(part, int(times))
		given := map[string]string{key: value}
		request := &csi.CreateVolumeRequest{Name: key, Parameters: given, MutableParameters: given, VolumeCapabilities: []*csi.VolumeCapability{{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: key, MountFlags: []string{value}}}}}}
		costOfParameters.Within(t, len(key)+len(value), func() {
			if checkLimits(request.ProtoReflect()) != nil {
				return
			}
			class, err := parseParameters(given)
			if err == nil {
				err = class.node.checkCapabilities(request.VolumeCapabilities)
			}
			_, errMutable := parseMutable(given)
			_, errNode := parseNodeParameters("volume_context", given)
			for _, err := range []error{err, errMutable, errNode, checkName("name", value), checkPath("path", value), checkVolumeID(value)} {
				if code := status.Code(err); err != nil && code != codes.InvalidArgument {
					t.Errorf("%s is answered by %s: %v", key, code, err)
				}
			}
			_, _ = parseToken(value)
			_, _ = parseMetadata(strings.NewReader(value))
		})
	})
}
