package simulator

import (
	"regexp"
	"slices"
	"strings"
)

// simpleBackupPattern is the documented form: a time and how often, or no.
var simpleBackupPattern = regexp.MustCompile(`^(no|([01][0-9]|2[0-3])[0-5][0-9],(daily|dailies|weeklies|monthlies))$`)

// checkServerChoices refuses values that are none of those that the API knows. What is not given is not checked.
func (r *serverRequest) checkServerChoices() error {
	v := &r.Server
	for _, choice := range []struct {
		value, attribute, code string
		known                  []string
	}{
		{v.Firewall, "firewall", "FIREWALL_INVALID", []string{"on", "off"}},
		{v.NICModel, "nic_model", "NIC_MODEL_INVALID", []string{"virtio", "e1000", "rtl8139"}},
		{v.VideoModel, "video_model", "VIDEO_MODEL_INVALID", []string{"vga", "cirrus"}},
		{v.RemoteType, "remote_access_type", "VNC_INVALID", []string{"vnc", "spice"}},
		{v.Timezone, "timezone", "TIMEZONE_INVALID", append(strings.Fields(timezones), "UTC")},
	} {
		if choice.value != "" && !slices.Contains(choice.known, choice.value) {
			return badRequest(choice.code, "The attribute '%s' has the value '%s', which is not valid.", choice.attribute,
				choice.value)
		}
	}
	if v.SimpleBackup != "" && !simpleBackupPattern.MatchString(v.SimpleBackup) {
		return badRequest("SIMPLE_BACKUP_INVALID", "The simple backup '%s' is not valid.", v.SimpleBackup)
	}
	var before []string
	for device := range strings.SplitSeq(v.BootOrder, ",") {
		if v.BootOrder != "" && (!slices.Contains([]string{"disk", "cdrom", "network"}, device) || slices.Contains(before, device)) {
			return badRequest("BOOT_ORDER_INVALID", "The boot order '%s' is not valid.", v.BootOrder)
		}
		before = append(before, device)
	}
	return nil
}

// checkServerSize refuses sizes of servers without a plan that the API does not list.
func checkServerSize(cores, memory int) error {
	if cores < 1 || cores > maxCores {
		return badRequest("CORE_NUMBER_INVALID", "A server has 1 to %d cores, not %d.", maxCores, cores)
	}
	if memory < 1024 || memory%1024 != 0 || memory > maxMemoryGiB*1024 {
		return badRequest("MEMORY_AMOUNT_INVALID", "The memory %d MiB is not valid: it must be 1 to %d GiB.", memory, maxMemoryGiB)
	}
	return nil
}
