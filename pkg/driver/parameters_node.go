package driver

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// Parameters of a StorageClass that are for the node. They reach it in the volume context, under the same keys, so that a
// PersistentVolume keeps what its volume was made with, and one written by hand can have them too.
const (
	// parameterMkfsOptions are further arguments of mkfs, parted by spaces.
	parameterMkfsOptions = "mkfsOptions"
	// parameterNodeEncryption asks for encryption on the node when set to luks2: what leaves the node is encrypted with
	// a key that UpCloud does not have. The default is none.
	parameterNodeEncryption = "nodeEncryption"
)

// What a volume is encrypted with on nodes. encryptionNone is for labels only: a StorageClass leaves the parameter out.
const (
	encryptionLUKS2 = "luks2"
	encryptionNone  = "none"
)

// secretPassphrase is the key of the node-stage and the node-expand secret that holds the passphrase of a volume
// encrypted on the node.
const secretPassphrase = "encryptionPassphrase"

// labelNodeEncryption tells on a storage, volume or backup, what its data is encrypted with on nodes, so that no copy is made
// that its node would refuse. Where it is absent (a storage made by other means or before there was the label, or a label
// that somebody took off) nothing is known: then only the node can tell.
const labelNodeEncryption = "csi-node-encryption"

// nodeParameters are the parameters that reach the node.
type nodeParameters struct {
	mkfsOptions []string
	encryption  string // "" or encryptionLUKS2
}

// parseNodeParameters picks the parameters of the node from a StorageClass or a volume context; field says which.
func parseNodeParameters(field string, given map[string]string) (nodeParameters, error) {
	if err := bounded.Text(given[parameterMkfsOptions], maxString); err != nil {
		return nodeParameters{}, invalid(field, "%s: %v", parameterMkfsOptions, err)
	}
	params := nodeParameters{mkfsOptions: strings.Fields(given[parameterMkfsOptions]), encryption: given[parameterNodeEncryption]}
	if params.encryption != "" && params.encryption != encryptionLUKS2 {
		return nodeParameters{}, invalid(field, "invalid %s %q: must be %s; leave it out for none", parameterNodeEncryption, params.encryption, encryptionLUKS2)
	}
	return params, nil
}

// volumeContext is what the node is told of the volume for as long as it exists; nil where there is nothing to tell.
func (p nodeParameters) volumeContext() map[string]string {
	told := make(map[string]string)
	if len(p.mkfsOptions) > 0 {
		told[parameterMkfsOptions] = strings.Join(p.mkfsOptions, " ")
	}
	if p.encryption != "" {
		told[parameterNodeEncryption] = p.encryption
	}
	if len(told) == 0 {
		return nil
	}
	return told
}

// labels are what the storage remembers of the parameters. A copy of what nobody knows about is such, too.
func (p nodeParameters) labels(source *cloud.Source) map[string]string {
	if source != nil && knownEncryption(source.Labels) == "" {
		return nil
	}
	return map[string]string{labelNodeEncryption: p.encryptionOnLabel()}
}

// encryptionOnLabel is the value of the label for what is asked for.
func (p nodeParameters) encryptionOnLabel() string {
	if p.encryption == "" {
		return encryptionNone
	}
	return p.encryption
}

// knownEncryption is the value of the label, "" where it tells nothing.
func knownEncryption(labels map[string]string) string {
	switch value := labels[labelNodeEncryption]; value {
	case encryptionLUKS2, encryptionNone:
		return value
	}
	return ""
}

// checkCapabilities refuses options that mkfs must not have, before there is a volume that cannot be formatted. Raw block
// volumes are not formatted: a StorageClass may serve both kinds.
func (p nodeParameters) checkCapabilities(capabilities []*csi.VolumeCapability) error {
	for _, capability := range capabilities {
		if capability.GetBlock() != nil {
			continue
		}
		if err := disk.ValidateMkfsOptions(capability.GetMount().GetFsType(), p.mkfsOptions); err != nil {
			return invalid("parameters", "%s: %v", parameterMkfsOptions, err)
		}
	}
	return nil
}

// checkSource refuses to make a copy that its node could not use: what is on the disk stays as it was encrypted. nil is no
// source, of which nothing is copied.
func (p nodeParameters) checkSource(source *cloud.Source) error {
	if source == nil {
		return nil
	}
	has, asked := knownEncryption(source.Labels), p.encryptionOnLabel()
	if has == "" || has == asked {
		return nil
	}
	remedy := "use a StorageClass without " + parameterNodeEncryption
	if has != encryptionNone {
		remedy = "use a StorageClass with " + parameterNodeEncryption + ": " + has + ", and the source's passphrase"
	}
	return invalid("parameters", "%s is %s, and by its label %s the source %s has %s, which a copy keeps: %s",
		parameterNodeEncryption, asked, labelNodeEncryption, source.ID, has, remedy)
}

// checkExisting refuses to take a volume for what is asked for when its node could not use it so.
func (p nodeParameters) checkExisting(id string, labels map[string]string) error {
	if has, asked := knownEncryption(labels), p.encryptionOnLabel(); has != "" && has != asked {
		return status.Errorf(codes.AlreadyExists, "parameters: volume %s already exists with %s %s, not %s; use its StorageClass, or another claim",
			id, parameterNodeEncryption, has, asked)
	}
	return nil
}

// parameterStageSecret begins the parameters of a StorageClass that name the secret of NodeStageVolume.
const parameterStageSecret = sidecarPrefix + "node-stage-secret"

// encryptionFor reads how a volume is to be encrypted on the node: nil where it is not.
func (p nodeParameters) encryptionFor(secrets map[string]string) (*disk.Encryption, error) {
	if p.encryption == "" {
		return nil, nil
	}
	if passphrase := secrets[secretPassphrase]; passphrase != "" {
		return &disk.Encryption{Passphrase: []byte(passphrase)}, nil
	}
	what := "no secret came with the request"
	if len(secrets) > 0 {
		what = fmt.Sprintf("the secret has no %s, only %s", secretPassphrase, strings.Join(slices.Sorted(maps.Keys(secrets)), ", "))
	}
	return nil, invalid("secrets", "the volume is encrypted on the node (%s: %s), and %s: name a Secret with the key %s in the "+
		"StorageClass, by %[5]s-name and %[5]s-namespace", parameterNodeEncryption, p.encryption, what, secretPassphrase,
		parameterStageSecret)
}

// encryptionToGrow is for growth, which is not told how the volume was made: what a secret is given for is encrypted.
func encryptionToGrow(secrets map[string]string) *disk.Encryption {
	if passphrase := secrets[secretPassphrase]; passphrase != "" {
		return &disk.Encryption{Passphrase: []byte(passphrase)}
	}
	return nil
}
