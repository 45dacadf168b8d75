package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

func (c *controller) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := checkName("name", req.GetName()); err != nil {
		return nil, err
	}
	if err := checkCapabilities("volume_capabilities", req.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	params, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	if err := params.checkFilesystem(req.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	if err := params.node.checkCapabilities(req.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	change, err := parseMutable(req.GetMutableParameters())
	if err != nil {
		return nil, err
	}
	change = merge(params.mutable, change)
	rule, err := ruleOf(change)
	if err != nil {
		return nil, err
	}
	maps.Copy(params.labels, change.Labels)
	source, err := c.sourceOf(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := params.node.checkSource(source); err != nil {
		return nil, err
	}
	maps.Copy(params.labels, params.node.labels(source))
	size, err := sizeFor(req.GetCapacityRange(), params.tier, source)
	if err != nil {
		return nil, err
	}
	zones, err := c.chooseZones(ctx, req.GetAccessibilityRequirements())
	if err != nil {
		return nil, err
	}
	spec := cloud.VolumeSpec{
		Name: req.GetName(), SizeGiB: size, Tier: params.tier.Name, Encrypted: params.encrypted, Labels: params.labels,
		BackupRule: rule,
	}
	spec.LeastGiB, spec.MostGiB = sizesFor(req.GetCapacityRange())
	if source != nil {
		spec.SourceID = source.ID
		spec.Encrypted = spec.Encrypted || source.Encrypted
	}
	volume, err := c.create(ctx, spec, zones)
	if err != nil {
		return nil, err
	}
	return created(req, params.node, volume)
}

// create makes the volume in the first of the zones. A volume of that name that is there already may be in any of
// them: an earlier try of the same request may have had another zone in front.
func (c *controller) create(ctx context.Context, spec cloud.VolumeSpec, zones []string) (*cloud.Volume, error) {
	var first error
	for _, zone := range zones {
		spec.Zone = zone
		volume, err := c.cloud.CreateVolume(ctx, spec)
		if !errors.Is(err, cloud.ErrAlreadyExists) {
			return volume, err
		}
		if first == nil {
			first = err
		}
		klog.FromContext(ctx).V(levelQueries).Info("The name is taken by a volume unlike this", "zone", zone, "reason", err.Error())
	}
	return nil, first
}

const (
	keepStorage = "to delete the PersistentVolume and keep the storage, set its persistentVolumeReclaimPolicy to Retain"
	keepBackup  = "to delete the VolumeSnapshotContent and keep the storage, set its deletionPolicy to Retain"
)

// DeleteVolume succeeds for volumes that are gone and for IDs that cannot name any. It refuses a UUID that names a backup,
// a template or a CD-ROM, or a disk that is not this cluster's.
func (c *controller) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	err := c.cloud.DeleteVolume(ctx, req.GetVolumeId())
	if errors.Is(err, cloud.ErrWrongType) {
		return nil, invalid("volume_id", "%v; %s", err, keepStorage)
	}
	if errors.Is(err, cloud.ErrNotOwned) {
		return nil, status.Errorf(codes.FailedPrecondition, "%v; %s", err, keepStorage)
	}
	if err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (c *controller) ValidateVolumeCapabilities(ctx context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	if len(req.GetVolumeCapabilities()) == 0 {
		return nil, missing("volume_capabilities")
	}
	for i, capability := range req.GetVolumeCapabilities() {
		if err := checkComplete(fmt.Sprintf("volume_capabilities[%d]", i), capability); err != nil {
			return nil, err
		}
	}
	volume, err := c.cloud.Volume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if why := unconfirmed(volume, req); why != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: statusMessage(why)}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeContext:      req.GetVolumeContext(),
			VolumeCapabilities: req.GetVolumeCapabilities(),
			Parameters:         req.GetParameters(),
			MutableParameters:  req.GetMutableParameters(),
		},
	}, nil
}

// unconfirmed tells what of the request the volume does not have, nil if it has it all.
func unconfirmed(volume *cloud.Volume, req *csi.ValidateVolumeCapabilitiesRequest) error {
	if err := checkCapabilities("volume_capabilities", req.GetVolumeCapabilities()); err != nil {
		return err
	}
	if err := sameMutable(volume, req.GetMutableParameters()); err != nil {
		return err
	}
	if len(req.GetParameters()) == 0 {
		return nil
	}
	params, err := parseParameters(req.GetParameters())
	if err != nil {
		return err
	}
	if err := params.checkFilesystem(req.GetVolumeCapabilities()); err != nil {
		return err
	}
	if err := params.node.checkExisting(volume.ID, volume.Labels); err != nil {
		return err
	}
	if _, asked := req.GetParameters()[parameterTier]; asked && params.tier.Name != volume.Tier {
		return invalid("parameters", "%s is %s, and the volume's is %s", parameterTier, params.tier.Name, volume.Tier)
	}
	if params.encrypted && !volume.Encrypted {
		return invalid("parameters", "%s is asked for, and the volume has none", parameterEncryption)
	}
	return nil
}

// sameMutable tells how a volume differs from the parameters of a VolumeAttributesClass.
func sameMutable(volume *cloud.Volume, given map[string]string) error {
	change, err := parseMutable(given)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(change.Labels)) {
		if has := volume.Labels[key]; has != change.Labels[key] {
			return invalid("mutable_parameters", "the label %s is %q, and not %q", key, has, change.Labels[key])
		}
	}
	if rule := change.RuleFor(volume.BackupRule); *rule != volume.BackupRule {
		return invalid("mutable_parameters", "the volume has %s, and not %s", &volume.BackupRule, rule)
	}
	return nil
}
