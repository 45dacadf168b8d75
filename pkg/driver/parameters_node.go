package driver

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

const encryptionLUKS2 = "luks2"

// secretPassphrase is the key of the node-stage and the node-expand secret that holds the passphrase of a volume
// encrypted on the node.
const secretPassphrase = "encryptionPassphrase"

// labelNodeEncryption tells on a storage what its data is encrypted with on nodes, so that a copy of it is not taken for
// plain. Absent where it is not.
const labelNodeEncryption = "csi-node-encryption"

// nodeParameters are the parameters that reach the node.
type nodeParameters struct {
	mkfsOptions []string
	encryption  string // "" or encryptionLUKS2
}

// parseNodeParameters picks the parameters of the node from a StorageClass or a volume context; field says which.
func parseNodeParameters(field string, given map[string]string) (nodeParameters, error) {
	params := nodeParameters{mkfsOptions: strings.Fields(given[parameterMkfsOptions]), encryption: given[parameterNodeEncryption]}
	if params.encryption != "" && params.encryption != encryptionLUKS2 {
		return nodeParameters{}, invalid(field, "%s is %q: use %s, or leave it out", parameterNodeEncryption, params.encryption, encryptionLUKS2)
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

// labels are what the storage remembers of the parameters.
func (p nodeParameters) labels() map[string]string {
	if p.encryption == "" {
		return nil
	}
	return map[string]string{labelNodeEncryption: p.encryption}
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

// checkSource refuses to make a copy that its node could not use: what is on the disk stays as it was encrypted. Of
// backups, and of disks that were made by other means, only the node can tell.
func (p nodeParameters) checkSource(id string, labels map[string]string) error {
	has := labels[labelNodeEncryption]
	switch {
	case has == p.encryption, has == "" && labels[cloud.LabelName] == "":
		return nil
	case has == "":
		return invalid("parameters", "%s is %s, and the source %s is not encrypted on the node: a copy is what its source is. "+
			"Use a StorageClass without %s", parameterNodeEncryption, p.encryption, id, parameterNodeEncryption)
	case p.encryption == "":
		return invalid("parameters", "the source %s is encrypted on the node with %s: use a StorageClass with %s: %s, and the "+
			"source's passphrase", id, has, parameterNodeEncryption, has)
	}
	return invalid("parameters", "%s is %s, and the source %s has %s", parameterNodeEncryption, p.encryption, id, has)
}

// checkExisting refuses to take a volume for what is asked for when its node could not use it so.
func (p nodeParameters) checkExisting(id string, labels map[string]string) error {
	if has := labels[labelNodeEncryption]; has != p.encryption {
		return status.Errorf(codes.AlreadyExists, "parameters: volume %s is there with %s %q, and %q was asked for",
			id, parameterNodeEncryption, has, p.encryption)
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
