// Loaded before the programs of docs/hosts.md: the model's repository is the folder of a server on this machine.
const REPOSITORY = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main/";
const { fetch } = globalThis;

globalThis.fetch = (address, options) => {
  if (!String(address).startsWith(REPOSITORY)) throw new Error(`the test fetches ${REPOSITORY}, not ${address}`);
  return fetch(String(address).replace(REPOSITORY, process.env.REPOSITORY), options);
};
