# Every system of the papers by its small preset, on the same 3,000 phantoms: minutes of one core each, for `make systems`.
#
# A line is a command as one would type it. What is trained is left alone, what was interrupted goes on where it stopped; a folder
# under runs/systems that is removed is made anew.

TRAINED := $(patsubst %,runs/systems/%/codec.json,\
	pca vae gmvae dcgan lsgan pggan encoder-bootstrap encoder-finetune codec-finetune stylegan crg dgm) runs/systems/densenet/classifier.json

ON_PHANTOMS = --preset cpu-small --data runs/systems/films/labels.csv --out $(@D) $(RESUME)
RESUME = $(if $(wildcard $(@D)/checkpoints/*),--resume)

runs/systems/%: export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
$(TRAINED): | setup runs/systems/films/labels.csv

runs/systems/films/labels.csv: | setup
	latentray phantom --count 3000 --seed 1000 --size 128 --out runs/systems/films

runs/systems/pca/codec.json:
	latentray train pca $(ON_PHANTOMS)

# Kumar and Triana 2024
runs/systems/vae/codec.json:
	latentray train vae $(ON_PHANTOMS)
runs/systems/gmvae/codec.json:
	latentray train gmvae $(ON_PHANTOMS)
runs/systems/lsgan/codec.json:
	latentray train lsgan $(ON_PHANTOMS)
# Radford et al. 2016
runs/systems/dcgan/codec.json:
	latentray train dcgan $(ON_PHANTOMS)

# Segal et al. 2021: the generator; Weber et al. 2022: its encoder; then both together
runs/systems/pggan/codec.json:
	latentray train pggan $(ON_PHANTOMS)
runs/systems/encoder-bootstrap/codec.json: | runs/systems/pggan/codec.json
	latentray train encoder-bootstrap --preset cpu-small --codec runs/systems/pggan --out $(@D) $(RESUME)
runs/systems/encoder-finetune/codec.json: | runs/systems/encoder-bootstrap/codec.json
	latentray train encoder-finetune $(ON_PHANTOMS) --codec runs/systems/encoder-bootstrap
runs/systems/codec-finetune/codec.json: | runs/systems/encoder-finetune/codec.json
	latentray train codec-finetune $(ON_PHANTOMS) --codec runs/systems/encoder-finetune \
		--discriminator runs/systems/pggan/discriminator.safetensors --set adversarial=0.001 \
		--set 'levels=[{"resolution": 64, "images": 4000, "batch": 16, "lr": 0.0005}]'

# Saboo et al. 2020
runs/systems/stylegan/codec.json:
	latentray train stylegan $(ON_PHANTOMS)
runs/systems/crg/codec.json: | runs/systems/stylegan/codec.json
	latentray train crg $(ON_PHANTOMS) --codec runs/systems/stylegan

# Tang et al. 2021
runs/systems/dgm/codec.json:
	latentray train dgm $(ON_PHANTOMS)

# Segal et al. 2021, 3.3: a classifier, whose features tell how far reconstructions are from films
runs/systems/densenet/classifier.json:
	latentray train densenet $(ON_PHANTOMS)
