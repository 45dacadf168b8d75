package cloud

import (
	"testing"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

func TestLabelQueryAsksForAllOfThem(t *testing.T) {
	got := labelQuery(map[string]string{"csi-name": "a b&c=d", "csi-cluster": "x"})
	if want := "label=csi-cluster%3Dx&label=csi-name%3Da+b%26c%3Dd"; got != want {
		t.Errorf("query is %s, want %s", got, want)
	}
}

func TestOnlyVolumesOfTheNameAreFound(t *testing.T) {
	storage := func(id, kind string, labels ...upcloud.Label) upcloud.Storage {
		return upcloud.Storage{UUID: id, Type: kind, Labels: labels}
	}
	name, cluster := upcloud.Label{Key: "csi-name", Value: "data"}, upcloud.Label{Key: "csi-cluster", Value: "a"}
	found := (&Cloud{config: Config{ClusterID: "a"}}).volumesWith(map[string]string{"csi-name": "data", "csi-cluster": "a"}, []upcloud.Storage{
		storage("of no label", "normal"),
		storage("of another name", "normal", upcloud.Label{Key: "csi-name", Value: "other"}, cluster),
		storage("of another cluster", "normal", name, upcloud.Label{Key: "csi-cluster", Value: "b"}),
		storage("of no cluster", "normal", name),
		storage("a backup of it", "backup", name, cluster),
		storage("it", "normal", cluster, name, upcloud.Label{Key: "more", Value: "x"}),
	})
	if len(found) != 1 || found[0].ID != "it" {
		t.Errorf("found %+v", found)
	}
}

func TestTiersOfTheirNames(t *testing.T) {
	for _, tier := range Tiers() {
		if err := ValidateTier(tier.Name); err != nil {
			t.Error(err)
		}
	}
	if err := ValidateTier("archive"); err != nil {
		t.Error(err)
	}
	wantKind(t, ValidateTier("SSD"), ErrInvalid, "SSD", "maxiops, standard, hdd")
}
