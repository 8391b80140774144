// The library of each system, imported as a path (package.json's `imports`).
declare module "#native/*" {
  const path: string;
  export default path;
}
